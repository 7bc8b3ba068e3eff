#include "xfrm/ims_keys.h"

#include <algorithm>
#include <bit>
#include <string_view>

#include <openssl/evp.h>
#include <openssl/hmac.h>

namespace gmgate::xfrm {
namespace {

// TS 33.220 Annex B: HMAC-SHA-256(CK || IK, FC || P0 || L0); the salt is its last 32 bits (TS 33.203 Annex I).
bool derive_salt(const Key128& ck, const Key128& ik, std::uint8_t fc, std::string_view p0,
                 std::span<std::uint8_t> salt) {
    Secret<32> key, output;
    auto key_bytes = key.expose_for_writing(32);
    std::ranges::copy(ck.expose(), key_bytes.begin());
    std::ranges::copy(ik.expose(), key_bytes.begin() + 16);

    std::array<std::uint8_t, 32> input{};
    std::size_t size = 0;
    input[size++] = fc;
    for (const char c : p0) input[size++] = static_cast<std::uint8_t>(c);
    input[size++] = 0;
    input[size++] = static_cast<std::uint8_t>(p0.size());

    unsigned written = 0;
    auto digest = output.expose_for_writing(32);
    if (!HMAC(EVP_sha256(), key_bytes.data(), static_cast<int>(key_bytes.size()), input.data(), size, digest.data(),
              &written) ||
        written != digest.size())
        return false;
    std::ranges::copy(digest.last(4), salt.begin());
    return true;
}

// Key and salt in one piece, as the kernel's rfc4106 and rfc4543 templates take them.
bool fill_combined(Secret<20>& out, const Key128& main, const Key128& ck, const Key128& ik, std::uint8_t fc,
                   std::string_view p0) {
    auto bytes = out.expose_for_writing(20);
    std::ranges::copy(main.expose(), bytes.begin());
    if (derive_salt(ck, ik, fc, p0, bytes.last(4))) return true;
    out.clear();
    return false;
}

// FIPS 46-3: each octet of a DES key has odd parity in its lowest bit.
void set_odd_parity(std::span<std::uint8_t> key) {
    for (auto& octet : key) {
        const auto upper = static_cast<std::uint8_t>(octet & 0xfe);
        octet = static_cast<std::uint8_t>(upper | ((std::popcount(upper) & 1) ^ 1));
    }
}

void fill_integrity(Secret<20>& out, Alg alg, const Key128& ik) {
    // hmac-sha-1-96: IK and 32 zero bits; hmac-md5-96: IK.
    auto bytes = out.expose_for_writing(alg == Alg::hmac_sha_1_96 ? 20 : 16);
    std::ranges::fill(bytes, std::uint8_t{0});
    std::ranges::copy(ik.expose(), bytes.begin());
}

void fill_confidentiality(Secret<24>& out, Ealg ealg, const Key128& ck) {
    if (ealg == Ealg::aes_cbc) {
        out.assign(ck.expose());
    } else if (ealg == Ealg::des_ede3_cbc) {  // CK = CK1 || CK2; the key is CK1 || CK2 || CK1
        auto bytes = out.expose_for_writing(24);
        std::ranges::copy(ck.expose(), bytes.begin());
        std::ranges::copy(ck.expose().first(8), bytes.begin() + 16);
        set_odd_parity(bytes);
    }
}

}  // namespace

Result<EspKeys> derive_esp_keys(AlgorithmPair pair, const Key128& ck, const Key128& ik) {
    if (!is_valid(pair)) return failure(Reaction::internal, "no ESP keys for a pair of algorithms that is not valid");
    if (ck.size() != 16 || ik.size() != 16) return failure(Reaction::internal, "CK and IK must have 16 octets each");

    EspKeys keys;
    bool derived = true;
    if (pair.ealg == Ealg::aes_gcm) {
        derived = fill_combined(keys.combined, ck, ck, ik, 0x59, "AES_GCM_SALT");
    } else if (pair.alg == Alg::aes_gmac) {
        derived = fill_combined(keys.combined, ik, ck, ik, 0x58, "AES_GMAC_SALT");
    } else {
        fill_integrity(keys.integrity, pair.alg, ik);
        fill_confidentiality(keys.confidentiality, pair.ealg, ck);
    }
    if (!derived) return failure(Reaction::internal, "libcrypto refused HMAC-SHA-256 for the salt");
    return keys;
}

}  // namespace gmgate::xfrm
