#include "base/siphash.h"

#include <bit>
#include <cstring>

namespace gmgate {

namespace {

struct State {
    std::uint64_t v0, v1, v2, v3;

    void round() {
        v0 += v1;
        v2 += v3;
        v1 = std::rotl(v1, 13) ^ v0;
        v3 = std::rotl(v3, 16) ^ v2;
        v0 = std::rotl(v0, 32);
        v2 += v1;
        v0 += v3;
        v1 = std::rotl(v1, 17) ^ v2;
        v3 = std::rotl(v3, 21) ^ v0;
        v2 = std::rotl(v2, 32);
    }
    void absorb(std::uint64_t word) {
        v3 ^= word;
        round();
        round();
        v0 ^= word;
    }
};

template <class Bytes>
std::uint64_t little_endian(const Bytes& bytes, std::size_t at, std::size_t count) {
    std::uint64_t word = 0;
    for (std::size_t i = 0; i < count; ++i) word |= std::uint64_t{static_cast<std::uint8_t>(bytes[at + i])} << (8 * i);
    return word;
}

std::uint64_t word_at(const char* bytes) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes, sizeof word);
    return std::endian::native == std::endian::little ? word : std::byteswap(word);
}

}  // namespace

std::uint64_t siphash(const SipHashKey& key, std::string_view text) {
    const std::uint64_t k0 = little_endian(key, 0, 8), k1 = little_endian(key, 8, 8);
    State s{k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261,
            k1 ^ 0x7465646279746573};  // the paper's constants
    std::size_t at = 0;
    for (; at + 8 <= text.size(); at += 8) s.absorb(word_at(text.data() + at));
    s.absorb(little_endian(text, at, text.size() - at) | std::uint64_t{text.size() & 0xff} << 56);
    s.v2 ^= 0xff;
    for (int i = 0; i < 4; ++i) s.round();
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

std::string siphash_hex(const SipHashKey& key, std::string_view text) {
    std::string digits(16, '0');
    std::uint64_t value = siphash(key, text);
    for (std::size_t i = digits.size(); i-- > 0; value >>= 4) digits[i] = "0123456789abcdef"[value & 15];
    return digits;
}

}  // namespace gmgate
