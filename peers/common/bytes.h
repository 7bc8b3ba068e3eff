// Octets, their textual forms, and octets that are wiped when they go.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace gmgate::peers {

using Bytes = std::vector<std::uint8_t>;
using ByteView = std::span<const std::uint8_t>;

/// Overwrites memory in a way that the compiler may not remove.
void wipe(void* data, std::size_t size) noexcept;
inline void wipe(std::string& text) noexcept { wipe(text.data(), text.size()); }

/// A key of exactly N octets: move-only, wiped on destruction and when moved from, no formatter, no comparison.
template <std::size_t N>
class Key {
public:
    Key() = default;
    explicit Key(std::span<const std::uint8_t, N> octets) { std::ranges::copy(octets, octets_.begin()); }
    ~Key() { wipe(octets_.data(), N); }
    Key(const Key&) = delete;
    Key& operator=(const Key&) = delete;
    Key(Key&& other) noexcept : octets_(other.octets_) { wipe(other.octets_.data(), N); }
    Key& operator=(Key&& other) noexcept {
        if (this != &other) {
            octets_ = other.octets_;
            wipe(other.octets_.data(), N);
        }
        return *this;
    }
    /// A deliberate second copy.
    [[nodiscard]] Key clone() const { return Key(std::span<const std::uint8_t, N>(octets_)); }
    [[nodiscard]] std::span<const std::uint8_t, N> expose() const { return octets_; }
    [[nodiscard]] std::span<std::uint8_t, N> buffer() { return octets_; }

private:
    std::array<std::uint8_t, N> octets_{};
};

/// Secret octets of a length known at run time; same rules as Key.
class SecretBytes {
public:
    SecretBytes() = default;
    explicit SecretBytes(ByteView octets) : octets_(octets.begin(), octets.end()) {}
    explicit SecretBytes(std::size_t size) : octets_(size) {}
    ~SecretBytes() { clear(); }
    SecretBytes(const SecretBytes&) = delete;
    SecretBytes& operator=(const SecretBytes&) = delete;
    SecretBytes(SecretBytes&& other) noexcept : octets_(std::move(other.octets_)) { other.octets_.clear(); }
    SecretBytes& operator=(SecretBytes&& other) noexcept {
        if (this != &other) {
            clear();
            octets_ = std::move(other.octets_);
            other.octets_.clear();
        }
        return *this;
    }
    [[nodiscard]] SecretBytes clone() const { return SecretBytes(ByteView(octets_)); }
    [[nodiscard]] ByteView expose() const { return octets_; }
    [[nodiscard]] std::span<std::uint8_t> buffer() { return octets_; }
    [[nodiscard]] std::size_t size() const { return octets_.size(); }
    void clear() noexcept {
        wipe(octets_.data(), octets_.size());
        octets_.clear();
    }

private:
    Bytes octets_;
};

/// The octets of a text, without copying. The text must outlive the view.
[[nodiscard]] inline ByteView as_bytes(std::string_view text) {
    return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

/// Lower-case hexadecimal.
[[nodiscard]] std::string to_hex(ByteView octets);
/// Hexadecimal in either case; nothing when a character is not a digit or the count is odd.
[[nodiscard]] std::optional<Bytes> from_hex(std::string_view text);
/// RFC 4648 §4, with padding.
[[nodiscard]] std::string to_base64(ByteView octets);
/// RFC 4648 §4; nothing unless the text is whole groups with correct padding.
[[nodiscard]] std::optional<Bytes> from_base64(std::string_view text);
/// Exactly N octets from 2·N hexadecimal digits.
template <std::size_t N>
[[nodiscard]] std::optional<std::array<std::uint8_t, N>> array_from_hex(std::string_view text) {
    auto octets = from_hex(text);
    if (!octets || octets->size() != N) return std::nullopt;
    std::array<std::uint8_t, N> out{};
    std::ranges::copy(*octets, out.begin());
    wipe(octets->data(), octets->size());
    return out;
}

/// Random octets of the operating system.
void fill_random(std::span<std::uint8_t> out);
[[nodiscard]] std::uint32_t random_u32();
/// A random token of lower-case hexadecimal digits, for tags, branches and Call-IDs.
[[nodiscard]] std::string random_token(std::size_t digits = 16);

}  // namespace gmgate::peers
