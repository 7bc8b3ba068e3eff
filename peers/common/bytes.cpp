#include "bytes.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>

#include <cstdlib>
#include <cstring>

namespace gmgate::peers {

void wipe(void* data, std::size_t size) noexcept {
    if (size != 0) OPENSSL_cleanse(data, size);
}

std::string to_hex(ByteView octets) {
    static constexpr std::string_view kDigits = "0123456789abcdef";
    std::string out;
    out.reserve(octets.size() * 2);
    for (const std::uint8_t octet : octets) {
        out.push_back(kDigits[octet >> 4]);
        out.push_back(kDigits[octet & 0x0f]);
    }
    return out;
}

namespace {

std::optional<std::uint8_t> hex_digit(char c) {
    if (c >= '0' && c <= '9') return static_cast<std::uint8_t>(c - '0');
    if (c >= 'a' && c <= 'f') return static_cast<std::uint8_t>(c - 'a' + 10);
    if (c >= 'A' && c <= 'F') return static_cast<std::uint8_t>(c - 'A' + 10);
    return std::nullopt;
}

constexpr std::string_view kBase64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

}  // namespace

std::optional<Bytes> from_hex(std::string_view text) {
    if (text.size() % 2 != 0) return std::nullopt;
    Bytes out;
    out.reserve(text.size() / 2);
    for (std::size_t i = 0; i < text.size(); i += 2) {
        const auto high = hex_digit(text[i]);
        const auto low = hex_digit(text[i + 1]);
        if (!high || !low) return std::nullopt;
        out.push_back(static_cast<std::uint8_t>((*high << 4) | *low));
    }
    return out;
}

std::string to_base64(ByteView octets) {
    std::string out;
    for (std::size_t i = 0; i < octets.size(); i += 3) {
        const std::size_t left = octets.size() - i;
        std::uint32_t group = std::uint32_t{octets[i]} << 16;
        if (left > 1) group |= std::uint32_t{octets[i + 1]} << 8;
        if (left > 2) group |= std::uint32_t{octets[i + 2]};
        out.push_back(kBase64[(group >> 18) & 63]);
        out.push_back(kBase64[(group >> 12) & 63]);
        out.push_back(left > 1 ? kBase64[(group >> 6) & 63] : '=');
        out.push_back(left > 2 ? kBase64[group & 63] : '=');
    }
    return out;
}

std::optional<Bytes> from_base64(std::string_view text) {
    if (text.size() % 4 != 0) return std::nullopt;
    std::size_t padding = 0;
    while (padding < 2 && padding < text.size() && text[text.size() - 1 - padding] == '=') ++padding;
    Bytes out;
    out.reserve(text.size() / 4 * 3);
    for (std::size_t i = 0; i < text.size(); i += 4) {
        std::uint32_t group = 0;
        for (std::size_t j = 0; j < 4; ++j) {
            std::size_t value = 0;
            if (i + j < text.size() - padding) {
                value = kBase64.find(text[i + j]);
                if (value == std::string_view::npos) return std::nullopt;
            }
            group = (group << 6) | static_cast<std::uint32_t>(value);
        }
        out.push_back(static_cast<std::uint8_t>(group >> 16));
        out.push_back(static_cast<std::uint8_t>(group >> 8));
        out.push_back(static_cast<std::uint8_t>(group));
    }
    for (; padding != 0 && !out.empty(); --padding) out.pop_back();
    return out;
}

void fill_random(std::span<std::uint8_t> out) {
    // Without a random source nothing that follows is worth doing.
    if (RAND_bytes(out.data(), static_cast<int>(out.size())) != 1) std::abort();
}

std::uint32_t random_u32() {
    std::array<std::uint8_t, 4> octets{};
    fill_random(octets);
    std::uint32_t value = 0;
    std::memcpy(&value, octets.data(), sizeof value);
    return value;
}

std::string random_token(std::size_t digits) {
    Bytes octets((digits + 1) / 2);
    fill_random(octets);
    std::string out = to_hex(octets);
    out.resize(digits);
    return out;
}

}  // namespace gmgate::peers
