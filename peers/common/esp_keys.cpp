#include "esp_keys.h"

#include "crypto.h"

#include <bit>

namespace gmgate::peers {
namespace {

std::uint8_t odd_parity(std::uint8_t octet) {
    const auto upper = static_cast<std::uint8_t>(octet & 0xfe);
    return static_cast<std::uint8_t>(upper | (std::popcount(upper) % 2 == 0 ? 1 : 0));
}

SecretBytes with_salt(const Key<16>& key, const SecretBytes& kdf) {
    SecretBytes out(std::size_t{20});
    std::ranges::copy(key.expose(), out.buffer().begin());
    std::ranges::copy(kdf.expose().last(4), out.buffer().begin() + 16);
    return out;
}

}  // namespace

SecretBytes esp_integrity_key(Alg alg, const Key<16>& ik) {
    switch (alg) {
        case Alg::hmac_md5_96:
            return SecretBytes(ByteView(ik.expose()));
        case Alg::hmac_sha_1_96: {
            SecretBytes out(std::size_t{20});
            std::ranges::copy(ik.expose(), out.buffer().begin());
            return out;
        }
        case Alg::aes_gmac:
        case Alg::null:
            return {};
    }
    return {};
}

SecretBytes esp_cipher_key(Ealg ealg, const Key<16>& ck) {
    switch (ealg) {
        case Ealg::aes_cbc:
            return SecretBytes(ByteView(ck.expose()));
        case Ealg::des_ede3_cbc: {
            SecretBytes out(std::size_t{24});
            for (std::size_t i = 0; i < 24; ++i) out.buffer()[i] = odd_parity(ck.expose()[i % 16]);
            return out;
        }
        case Ealg::aes_gcm:
        case Ealg::null:
            return {};
    }
    return {};
}

SecretBytes gba_kdf(const Key<16>& ck, const Key<16>& ik, std::uint8_t fc, std::string_view p0) {
    SecretBytes key(std::size_t{32});
    std::ranges::copy(ck.expose(), key.buffer().begin());
    std::ranges::copy(ik.expose(), key.buffer().begin() + 16);
    Bytes s{fc};
    s.insert(s.end(), p0.begin(), p0.end());
    s.push_back(static_cast<std::uint8_t>(p0.size() >> 8));
    s.push_back(static_cast<std::uint8_t>(p0.size() & 0xff));
    return hmac(Hash::sha256, key.expose(), s);
}

SecretBytes esp_aead_key(AlgPair pair, const Key<16>& ck, const Key<16>& ik) {
    if (pair.ealg == Ealg::aes_gcm) return with_salt(ck, gba_kdf(ck, ik, 0x59, "AES_GCM_SALT"));
    if (pair.alg == Alg::aes_gmac) return with_salt(ik, gba_kdf(ck, ik, 0x58, "AES_GMAC_SALT"));
    return {};
}

}  // namespace gmgate::peers
