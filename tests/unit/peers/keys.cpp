// ESP keys of the peers against published vectors, and the algorithm table.
#include "tests/unit/peers/vectors.h"

#include "peers/common/esp_keys.h"

#include <doctest/doctest.h>

using namespace gmgate::peers;

namespace {

Key<16> key_of(const char* hex) { return Key<16>(std::span<const std::uint8_t, 16>(*array_from_hex<16>(hex))); }

}  // namespace

TEST_CASE("TS 33.203 Annex I: integrity and cipher keys, with parity for 3DES") {
    for (const vectors::Derived& d : vectors::kDerived) {
        const vectors::Milenage& v = vectors::kMilenage[d.index];
        CAPTURE(v.set);
        CHECK(to_hex(esp_integrity_key(Alg::hmac_md5_96, key_of(v.f4)).expose()) == d.ik_md5);
        CHECK(to_hex(esp_integrity_key(Alg::hmac_sha_1_96, key_of(v.f4)).expose()) == d.ik_sha1);
        CHECK(to_hex(esp_cipher_key(Ealg::aes_cbc, key_of(v.f3)).expose()) == d.ck_aes);
        CHECK(to_hex(esp_cipher_key(Ealg::des_ede3_cbc, key_of(v.f3)).expose()) == d.ck_des3);
        CHECK(esp_cipher_key(Ealg::null, key_of(v.f3)).size() == 0);
    }
}

TEST_CASE("TS 33.203 Annex I, TS 33.220 Annex B: salts of aes-gcm and aes-gmac") {
    for (const vectors::Derived& d : vectors::kDerived) {
        const vectors::Milenage& v = vectors::kMilenage[d.index];
        CAPTURE(v.set);
        CHECK(to_hex(gba_kdf(key_of(v.f3), key_of(v.f4), 0x58, "AES_GMAC_SALT").expose()) == d.kdf_58);
        CHECK(to_hex(gba_kdf(key_of(v.f3), key_of(v.f4), 0x59, "AES_GCM_SALT").expose()) == d.kdf_59);
        CHECK(to_hex(esp_aead_key({Alg::aes_gmac, Ealg::null}, key_of(v.f3), key_of(v.f4)).expose()) ==
              d.gmac_key_salt);
        CHECK(to_hex(esp_aead_key({Alg::null, Ealg::aes_gcm}, key_of(v.f3), key_of(v.f4)).expose()) == d.gcm_key_salt);
    }
}

TEST_CASE("TS 33.203 Annex H: only the valid combinations are valid") {
    std::size_t valid = 0;
    for (const Alg alg : {Alg::hmac_md5_96, Alg::hmac_sha_1_96, Alg::aes_gmac, Alg::null})
        for (const Ealg ealg : {Ealg::null, Ealg::des_ede3_cbc, Ealg::aes_cbc, Ealg::aes_gcm})
            valid += is_valid({alg, ealg}) ? 1U : 0U;
    CHECK(valid == 8);
    CHECK(all_pairs().size() == 8);
    CHECK_FALSE(is_valid({Alg::null, Ealg::null}));
    CHECK_FALSE(is_valid({Alg::hmac_sha_1_96, Ealg::aes_gcm}));
    CHECK_FALSE(is_valid({Alg::aes_gmac, Ealg::aes_cbc}));
}

TEST_CASE("an offer is read in order and refused with a reason") {
    const auto offer = parse_offer("HMAC-MD5-96/null, null/aes-gcm", false);
    REQUIRE(offer);
    CHECK(*offer == std::vector<AlgPair>{{Alg::hmac_md5_96, Ealg::null}, {Alg::null, Ealg::aes_gcm}});
    CHECK_FALSE(parse_offer("null/null", false));
    CHECK(parse_offer("null/null", true));
    CHECK_FALSE(parse_offer("aes-gmac", false));
    CHECK_FALSE(parse_offer("", false));
}

TEST_CASE("a moved-from key holds nothing") {
    Key<16> k = key_of("465b5ce8b199b49faa5f0a2ee238a6bc");
    const Key<16> other = std::move(k);
    CHECK(to_hex(k.expose()) == std::string(32, '0'));  // NOLINT(bugprone-use-after-move): that is the point
    CHECK(to_hex(other.expose()) == "465b5ce8b199b49faa5f0a2ee238a6bc");
}
