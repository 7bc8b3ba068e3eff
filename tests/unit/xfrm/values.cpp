// Keys, the SA table and the SPI pool. Vectors: TS 35.208 sets 1, 3, 20 through TS 33.203 Annex I.
#include <algorithm>
#include <type_traits>

#include <doctest/doctest.h>

#include "xfrm/algorithms.h"
#include "xfrm/ims_keys.h"
#include "xfrm/netlink/codec.h"
#include "xfrm/sa.h"
#include "xfrm/spi_pool.h"

using namespace gmgate;
using namespace gmgate::xfrm;

static_assert(!std::is_copy_constructible_v<EspKeys> && !std::is_copy_assignable_v<EspKeys> &&
              std::is_move_constructible_v<EspKeys>);
static_assert(!std::is_copy_constructible_v<SetRequest> && !std::is_copy_assignable_v<SetRequest>);
static_assert(!std::is_copy_constructible_v<Key128> && !std::equality_comparable<Key128>);
static_assert(!std::is_copy_constructible_v<MessageBuffer> && !std::is_copy_constructible_v<WipedBytes>);

namespace {

Key128 key(std::string_view hex) {
    Key128 out;
    auto bytes = out.expose_for_writing(hex.size() / 2);
    for (std::size_t i = 0; i < bytes.size(); ++i)
        bytes[i] = static_cast<std::uint8_t>(std::stoi(std::string(hex.substr(2 * i, 2)), nullptr, 16));
    return out;
}

std::string hex(std::span<const std::uint8_t> bytes) {
    std::string out;
    for (const auto b : bytes) {
        out += "0123456789abcdef"[b >> 4];
        out += "0123456789abcdef"[b & 15];
    }
    return out;
}

struct Vector {
    const char *ck, *ik, *md5, *sha1, *aes, *des3, *gmac, *gcm;
};
constexpr Vector kVectors[] = {
    {"b40ba9a3c58b2a05bbf0d987b21bf8cb", "f769bcd751044604127672711c6d3441", "f769bcd751044604127672711c6d3441",
     "f769bcd751044604127672711c6d344100000000", "b40ba9a3c58b2a05bbf0d987b21bf8cb",
     "b50ba8a2c48a2a04baf1d986b31af8cbb50ba8a2c48a2a04", "f769bcd751044604127672711c6d3441dbc2b1c2",
     "b40ba9a3c58b2a05bbf0d987b21bf8cb89273db6"},
    {"5dbdbb2954e8f3cde665b046179a5098", "59a92d3b476a0443487055cf88b2307b", "59a92d3b476a0443487055cf88b2307b",
     "59a92d3b476a0443487055cf88b2307b00000000", "5dbdbb2954e8f3cde665b046179a5098",
     "5dbcba2954e9f2cde664b046169b51985dbcba2954e9f2cd", "59a92d3b476a0443487055cf88b2307bbcf31f7f",
     "5dbdbb2954e8f3cde665b046179a50982a196eb0"},
    {"b5f2da03883b69f96bf52e029ed9ac45", "b4721368bc16ea67875c5598688bb0ef", "b4721368bc16ea67875c5598688bb0ef",
     "b4721368bc16ea67875c5598688bb0ef00000000", "b5f2da03883b69f96bf52e029ed9ac45",
     "b5f2da02893b68f86bf42f029ed9ad45b5f2da02893b68f8", "b4721368bc16ea67875c5598688bb0ef5ede5108",
     "b5f2da03883b69f96bf52e029ed9ac458e01e4f8"},
};

}  // namespace

TEST_CASE("B-70, B-71: ESP keys of every pair from the vectors of TS 35.208 sets 1, 3 and 20") {
    for (const auto& v : kVectors) {
        const auto ck = key(v.ck);
        const auto ik = key(v.ik);
        for (const auto pair : kDefaultPreference) {
            CAPTURE(to_string(pair.alg));
            CAPTURE(to_string(pair.ealg));
            const auto keys = derive_esp_keys(pair, ck, ik);
            REQUIRE(keys);
            std::string integrity, confidentiality, combined;
            if (pair.ealg == Ealg::aes_gcm) combined = v.gcm;
            else if (pair.alg == Alg::aes_gmac) combined = v.gmac;
            else integrity = pair.alg == Alg::hmac_md5_96 ? v.md5 : v.sha1;
            if (pair.ealg == Ealg::aes_cbc) confidentiality = v.aes;
            if (pair.ealg == Ealg::des_ede3_cbc) confidentiality = v.des3;
            CHECK(hex(keys->integrity.expose()) == integrity);
            CHECK(hex(keys->confidentiality.expose()) == confidentiality);
            CHECK(hex(keys->combined.expose()) == combined);
            CHECK(fits(pair, *keys));
        }
    }
}

TEST_CASE("B-62: pairs that are not valid and keys of a wrong length derive nothing") {
    const auto ck = key(kVectors[0].ck);
    const auto ik = key(kVectors[0].ik);
    CHECK(derive_esp_keys({Alg::null, Ealg::null}, ck, ik).error().reaction == Reaction::internal);
    CHECK_FALSE(derive_esp_keys({Alg::aes_gmac, Ealg::aes_cbc}, ck, ik));
    CHECK_FALSE(derive_esp_keys({Alg::hmac_sha_1_96, Ealg::aes_gcm}, ck, ik));
    CHECK_FALSE(derive_esp_keys({Alg::hmac_sha_1_96, Ealg::aes_cbc}, key("0011"), ik));
    CHECK_FALSE(derive_esp_keys({Alg::hmac_sha_1_96, Ealg::aes_cbc}, ck, Key128{}));
}

TEST_CASE("Keys of another pair do not fit") {
    const auto keys = derive_esp_keys({Alg::hmac_md5_96, Ealg::aes_cbc}, key(kVectors[0].ck), key(kVectors[0].ik));
    REQUIRE(keys);
    CHECK_FALSE(fits({Alg::hmac_sha_1_96, Ealg::aes_cbc}, *keys));  // the kernel would take 16 octets for sha1 silently
    CHECK_FALSE(fits({Alg::null, Ealg::aes_gcm}, *keys));
}

TEST_CASE("Every valid pair has a row of kernel names, and the names lead back to it") {
    CHECK(all_algorithms().size() == kDefaultPreference.size());
    for (const auto pair : kDefaultPreference) {
        const auto* row = find_algorithms(pair);
        REQUIRE(row);
        CHECK(pair_from_names(row->auth, row->crypt, row->aead) == pair);
        CHECK_FALSE(row->modules.empty());
    }
    CHECK(find_algorithms({Alg::null, Ealg::null}) == nullptr);
    CHECK_FALSE(pair_from_names("hmac(sha256)", "cbc(aes)", ""));
}

TEST_CASE("B-18: the four SAs of the TS 24.228 flow") {
    SetParameters p{};
    p.ue = *Address::parse("5555::aaa:bbb:ccc:ddd");
    p.gateway = *Address::parse("2001:db8::1");
    p.port_uc = Port{2468};
    p.port_us = Port{1357};
    p.port_pc = Port{8642};
    p.port_ps = Port{7531};
    p.spi_uc = Spi{23456789};
    p.spi_us = Spi{12345678};
    p.spi_pc = Spi{98765432};
    p.spi_ps = Spi{87654321};
    const auto sas = four_sas(p);
    struct Row {
        Direction direction;
        Address from;
        unsigned sport;
        Address to;
        unsigned dport;
        std::uint32_t spi;
    };
    const Row rows[] = {{Direction::in, p.ue, 2468, p.gateway, 7531, 87654321},
                        {Direction::out, p.gateway, 8642, p.ue, 1357, 12345678},
                        {Direction::in, p.ue, 1357, p.gateway, 8642, 98765432},
                        {Direction::out, p.gateway, 7531, p.ue, 2468, 23456789}};
    for (std::size_t i = 0; i < 4; ++i) {
        CAPTURE(i);
        CHECK(sas[i].direction == rows[i].direction);
        CHECK(sas[i].source == Endpoint{rows[i].from, Port{static_cast<std::uint16_t>(rows[i].sport)}});
        CHECK(sas[i].destination == Endpoint{rows[i].to, Port{static_cast<std::uint16_t>(rows[i].dport)}});
        CHECK(sas[i].id == SaId{rows[i].to, Spi{rows[i].spi}});
    }
}

TEST_CASE("B-13: each protected port has one guard in and one out, whatever the number of phones") {
    const GuardRequest request{*Address::parse("192.0.2.1"), {Port{6100}, Port{6101}}};
    const auto policies = guard_policies(request);
    REQUIRE(policies.size() == 4);
    CHECK(std::ranges::count(policies, Direction::in, &GuardPolicy::direction) == 2);
    CHECK(std::ranges::count(policies, Direction::out, &GuardPolicy::direction) == 2);
}

TEST_CASE("B-11: SPIs differ from each other, from the UE's and from all in use") {
    std::vector<std::uint64_t> draws{5, 5, 6, 6, 7, 8};  // offsets from the first
    std::size_t next = 0;
    SpiPool pool(Spi{100000}, Spi{100100}, [&] { return draws[next++ % draws.size()]; });
    const auto first = pool.take(Spi{100005}, Spi{1});
    REQUIRE(first);
    CHECK(first->spi_pc == Spi{100006});  // 5 is the UE's
    CHECK(first->spi_ps == Spi{100007});  // 6 is taken
    CHECK(pool.in_use() == 2);
    pool.release(*first);
    CHECK(pool.in_use() == 0);
}

TEST_CASE("The SPI pool hands out every value of its range and then says that it is exhausted") {
    SpiPool pool(Spi{70000}, Spi{70009}, [] { return std::uint64_t{0}; });
    for (int i = 0; i < 4; ++i) REQUIRE(pool.take(Spi{70000}, Spi{70001}));  // 8 free values beside the UE's
    const auto none = pool.take(Spi{70000}, Spi{70001});
    REQUIRE_FALSE(none);
    CHECK(none.error().reaction == Reaction::exhausted);
    CHECK(pool.in_use() == 8);
    CHECK(pool.take(Spi{1}, Spi{2}));  // 70000 and 70001 are free for another phone
}

TEST_CASE("An odd value left over is not lost when no pair can be made of it") {
    SpiPool pool(Spi{70000}, Spi{70002}, [] { return std::uint64_t{1}; });
    REQUIRE(pool.take(Spi{1}, Spi{2}));
    CHECK_FALSE(pool.take(Spi{1}, Spi{2}));
    CHECK(pool.in_use() == 2);
}

TEST_CASE("A pair found in the kernel is adopted once") {
    SpiPool pool;
    const SpiPair pair{Spi{0x10000001}, Spi{0x10000002}};
    CHECK(pool.adopt(pair));
    CHECK_FALSE(pool.adopt(pair));
    CHECK_FALSE(pool.adopt({Spi{0x10000003}, Spi{0x10000002}}));
    CHECK_FALSE(pool.adopt({Spi{0x10000004}, Spi{0x10000004}}));
    CHECK(pool.in_use() == 2);
}

TEST_CASE("Without a test's numbers the SPIs are large and random") {
    SpiPool pool;
    const auto a = pool.take(Spi{1}, Spi{2});
    const auto b = pool.take(Spi{1}, Spi{2});
    REQUIRE((a && b));
    for (const Spi spi : {a->spi_pc, a->spi_ps, b->spi_pc, b->spi_ps})
        CHECK((spi >= Spi{0x10000000} && spi <= Spi{0xbfffffff}));
    CHECK(a->spi_pc.value + 1 != a->spi_ps.value);
}
