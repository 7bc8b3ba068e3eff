// AKA and digest of the peers against published vectors.
#include "tests/unit/peers/vectors.h"

#include "peers/common/aka.h"
#include "peers/common/digest.h"

#include <doctest/doctest.h>

using namespace gmgate::peers;

namespace {

template <std::size_t N>
std::array<std::uint8_t, N> octets(const char* hex) {
    const auto out = array_from_hex<N>(hex);
    REQUIRE(out);
    return *out;
}
Key<16> key(const char* hex) { return Key<16>(std::span<const std::uint8_t, 16>(octets<16>(hex))); }
AkaSecrets secrets_of(const vectors::Milenage& v) { return {key(v.k), key(v.opc)}; }

DigestInput input_of(const vectors::Derived& d, Hash hash, const char* qop) {
    return {.algorithm = hash,
            .username = "001010000000001@ims.mnc001.mcc001.3gppnetwork.org",
            .realm = "ims.mnc001.mcc001.3gppnetwork.org",
            .method = "REGISTER",
            .uri = "sip:ims.mnc001.mcc001.3gppnetwork.org",
            .nonce = d.nonce,
            .qop = qop,
            .nc = "00000001",
            .cnonce = "0a4f113b",
            .body = {}};
}

}  // namespace

TEST_CASE("TS 35.208: Milenage yields every published value") {
    for (const vectors::Milenage& v : vectors::kMilenage) {
        CAPTURE(v.set);
        const Key<16> k = key(v.k);
        CHECK(to_hex(opc_from_op(k, key(v.op)).expose()) == v.opc);
        const MilenageOutput m =
            milenage(k, key(v.opc), octets<16>(v.rand), Sqn::from_octets(octets<6>(v.sqn)), octets<2>(v.amf));
        CHECK(to_hex(m.mac_a) == v.f1);
        CHECK(to_hex(m.mac_s) == v.f1_star);
        CHECK(to_hex(m.res.expose()) == v.f2);
        CHECK(to_hex(m.ck.expose()) == v.f3);
        CHECK(to_hex(m.ik.expose()) == v.f4);
        CHECK(to_hex(m.ak) == v.f5);
        CHECK(to_hex(m.aks) == v.f5_star);
    }
}

TEST_CASE("TS 33.102 6.3.2: AUTN is (SQN xor AK) || AMF || MAC-A, and the USIM accepts it once") {
    for (const vectors::Milenage& v : vectors::kMilenage) {
        if (*v.autn == '\0') continue;
        CAPTURE(v.set);
        const Sqn sqn = Sqn::from_octets(octets<6>(v.sqn));
        const AuthVector vector = make_auth_vector(secrets_of(v), octets<16>(v.rand), sqn, octets<2>(v.amf));
        CHECK(to_hex(vector.autn) == v.autn);
        CHECK(to_hex(vector.xres.expose()) == v.f2);
        const AkaOutcome fresh = usim_authenticate(secrets_of(v), vector.rand, vector.autn, Sqn{sqn.value - 1});
        REQUIRE(std::holds_alternative<AkaSuccess>(fresh));
        CHECK(to_hex(std::get<AkaSuccess>(fresh).ck.expose()) == v.f3);
        CHECK(to_hex(std::get<AkaSuccess>(fresh).ik.expose()) == v.f4);
        CHECK(std::holds_alternative<AkaSyncFailure>(usim_authenticate(secrets_of(v), vector.rand, vector.autn, sqn)));
        Autn forged = vector.autn;
        forged[15] ^= 1;
        CHECK(std::holds_alternative<AkaMacFailure>(usim_authenticate(secrets_of(v), vector.rand, forged, Sqn{0})));
    }
}

TEST_CASE("TS 33.102 6.3.5: published AUTS values verify, altered ones do not") {
    const vectors::Milenage& set20 = vectors::kMilenage[19];
    const auto first =
        verify_auts(secrets_of(set20), octets<16>(set20.rand), octets<14>("4f2039392ddd4bb4316ed4a14688"));
    REQUIRE(first);
    CHECK(first->value == 1);
    Rand all_aa{};
    all_aa.fill(0xaa);
    CHECK(verify_auts(secrets_of(set20), all_aa, octets<14>("43681ad3daf006bcde405a207267")));
    CHECK_FALSE(verify_auts(secrets_of(set20), octets<16>(set20.rand), octets<14>("4f2039392ddd4bb4316ed4a14689")));
}

TEST_CASE("RFC 2617 3.5: the published digest response") {
    const DigestInput input{.algorithm = Hash::md5,
                            .username = "Mufasa",
                            .realm = "testrealm@host.com",
                            .method = "GET",
                            .uri = "/dir/index.html",
                            .nonce = "dcd98b7102dd2f0e8b11d0f600bfb0c093",
                            .qop = "auth",
                            .nc = "00000001",
                            .cnonce = "0a4f113b",
                            .body = {}};
    CHECK(digest_response(input, as_bytes("Circle Of Life")) == "6629fae49393a05397450978507c4ef1");
}

TEST_CASE("RFC 3310, RFC 4169: nonce, responses and AUTS of AKAv1 and AKAv2") {
    for (const vectors::Derived& d : vectors::kDerived) {
        const vectors::Milenage& v = vectors::kMilenage[d.index];
        CAPTURE(v.set);
        CHECK(aka_nonce(octets<16>(v.rand), octets<16>(v.autn)) == d.nonce);
        const auto parsed = parse_aka_nonce(d.nonce);
        REQUIRE(parsed);
        CHECK(to_hex(parsed->autn) == v.autn);
        const auto res = octets<8>(v.f2);
        CHECK(digest_response(input_of(d, Hash::md5, ""), res) == d.akav1_no_qop);
        CHECK(digest_response(input_of(d, Hash::md5, "auth"), res) == d.akav1_auth);
        const SecretBytes md5 = akav2_password(Hash::md5, res, key(v.f4), key(v.f3));
        CHECK(std::string(md5.expose().begin(), md5.expose().end()) == d.akav2_md5_password);
        CHECK(digest_response(input_of(d, Hash::md5, "auth"), md5.expose()) == d.akav2_md5_auth);
        const SecretBytes sha = akav2_password(Hash::sha256, res, key(v.f4), key(v.f3));
        CHECK(std::string(sha.expose().begin(), sha.expose().end()) == d.akav2_sha256_password);
        CHECK(digest_response(input_of(d, Hash::sha256, "auth"), sha.expose()) == d.akav2_sha256_auth);
        const Auts auts = make_auts(secrets_of(v), octets<16>(v.rand), Sqn::from_octets(octets<6>(v.sqn)));
        CHECK(to_hex(auts) == d.auts);
        CHECK(to_base64(auts) == d.auts_base64);
        CHECK(digest_response(input_of(d, Hash::md5, "auth"), {}) == d.auts_response);
    }
}

TEST_CASE("RFC 3310 section 4: the malformed nonces of the examples are refused, not misread") {
    CHECK_FALSE(parse_aka_nonce("CjPk9mRqNuT25eRkajM09uTl9nM09uTl9nMz5OX25PZz=="));
    const auto seed = parse_aka_nonce("Ms8l2xeF3l4lb0VO8fK3KFMSKLv1sQAATdN2NpFUCgU=");
    REQUIRE(seed);
    CHECK(to_hex(seed->rand) == "32cf25db1785de5e256f454ef1f2b728");
    CHECK(to_hex(seed->autn) == "531228bbf5b100004dd3763691540a05");
}
