// Key material: move-only bytes that are wiped when they are moved from or destroyed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace gmgate {

/// Overwrites memory in a way the compiler may not remove.
inline void wipe(void* memory, std::size_t size) noexcept { explicit_bzero(memory, size); }
inline void wipe(std::span<std::uint8_t> bytes) noexcept { wipe(bytes.data(), bytes.size()); }

/// At most N bytes of key material. No formatter, no comparison, no copy; `expose()` is the only way to the bytes and
/// easy to search for.
template <std::size_t N>
class Secret {
public:
    Secret() = default;
    explicit Secret(std::span<const std::uint8_t> bytes) { assign(bytes); }
    Secret(Secret&& other) noexcept : bytes_(other.bytes_), size_(other.size_) { other.clear(); }
    Secret& operator=(Secret&& other) noexcept {
        if (this != &other) {
            bytes_ = other.bytes_;
            size_ = other.size_;
            other.clear();
        }
        return *this;
    }
    Secret(const Secret&) = delete;
    Secret& operator=(const Secret&) = delete;
    ~Secret() { clear(); }

    /// Replaces the content; bytes beyond N are a programming error and are refused by leaving the secret empty.
    void assign(std::span<const std::uint8_t> bytes) noexcept {
        clear();
        if (bytes.size() > N) return;
        if (!bytes.empty()) std::memcpy(bytes_.data(), bytes.data(), bytes.size());
        size_ = bytes.size();
    }
    /// A deliberate copy, for the four SAs that share one key.
    Secret duplicate() const { return Secret(expose()); }
    void clear() noexcept {
        wipe(bytes_.data(), N);
        size_ = 0;
    }
    std::span<const std::uint8_t> expose() const noexcept { return {bytes_.data(), size_}; }
    /// For code that fills the secret in place (a key derivation). `size` ≤ N becomes the new length.
    std::span<std::uint8_t> expose_for_writing(std::size_t size) noexcept {
        size_ = size <= N ? size : N;
        return {bytes_.data(), size_};
    }
    std::size_t size() const noexcept { return size_; }
    bool empty() const noexcept { return size_ == 0; }

private:
    std::array<std::uint8_t, N> bytes_{};
    std::size_t size_ = 0;
};

}  // namespace gmgate
