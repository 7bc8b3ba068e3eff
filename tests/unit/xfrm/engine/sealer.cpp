// The seal of a cluster's records: what was altered, moved, or is another's does not open.
#include <algorithm>

#include <doctest/doctest.h>

#include "tests/support/engine_world.h"
#include "xfrm/engine/sealer.h"

using namespace gmgate;
using namespace gmgate::xfrm;
using namespace gmgate::test;

namespace {

const std::string kOne = "1:" + std::string(64, 'a') + "\n", kTwo = "2:" + std::string(64, 'b') + "\n";

Sealer sealer(const std::string& cluster = "home", const std::string& text = kOne) {
    auto made = Sealer::from_text(cluster, text);
    REQUIRE(made);
    return std::move(*made);
}

KeyedSet keyed() {
    auto request = a_request();
    KeyedSet set;
    set.keys = std::move(request.keys);
    set.sequences = {.out = {7, 9}, .in = {100, 3}};
    return set;
}

bool is_refused(const Result<KeyedSet>& opened) {
    return !opened && opened.error().reaction == Reaction::refused && opened.error().code == EPERM;
}

}  // namespace

TEST_CASE("what one node seals another one of the same cluster opens, and nobody sees the keys in between") {
    const auto set = to_frame(a_request().parameters);
    const RecordDigest record{1, 2, 3};
    const auto sealed = sealer().seal(set, record, 5, keyed());
    REQUIRE(sealed);
    const auto opened = sealer().open(set, record, *sealed);
    REQUIRE(opened);
    CHECK(std::ranges::equal(opened->keys.integrity.expose(), keyed().keys.integrity.expose()));
    CHECK(std::ranges::equal(opened->keys.confidentiality.expose(), keyed().keys.confidentiality.expose()));
    CHECK(opened->sequences.in == std::array<std::uint32_t, 2>{100, 3});
    const std::string_view octets(reinterpret_cast<const char*>(&*sealed), sizeof *sealed);
    const auto original = keyed();
    const auto key = original.keys.integrity.expose();
    REQUIRE(!key.empty());
    CHECK(octets.find({reinterpret_cast<const char*>(key.data()), 8}) == std::string_view::npos);
    const auto again = sealer().seal(set, record, 5, keyed());
    REQUIRE(again);
    CHECK(!std::ranges::equal(again->nonce, sealed->nonce));
}

TEST_CASE("every octet of a seal counts") {
    const auto set = to_frame(a_request().parameters);
    const auto sealed = sealer().seal(set, {}, 5, keyed());
    REQUIRE(sealed);
    for (std::size_t i = 0; i < sizeof *sealed; ++i) {
        auto altered = *sealed;
        reinterpret_cast<std::uint8_t*>(&altered)[i] ^= 1;
        CAPTURE(i);
        CHECK(is_refused(sealer().open(set, {}, altered)));
    }
}

TEST_CASE("another cluster, secret, record, set or key id: nothing opens") {
    auto parameters = a_request().parameters;
    const auto set = to_frame(parameters);
    const auto sealed = sealer().seal(set, {}, 5, keyed());
    REQUIRE(sealed);
    CHECK(is_refused(sealer("away").open(set, {}, *sealed)));
    CHECK(is_refused(sealer("home", "1:" + std::string(64, 'c') + "\n").open(set, {}, *sealed)));
    CHECK(is_refused(sealer("home", kTwo).open(set, {}, *sealed)));
    CHECK(is_refused(sealer().open(set, {1}, *sealed)));
    parameters.spi_pc = Spi{parameters.spi_pc.value + 1};
    CHECK(is_refused(sealer().open(to_frame(parameters), {}, *sealed)));
    // Rotation: the new line first seals, the old one opens still.
    const auto rotated = sealer("home", kTwo + kOne);
    CHECK(rotated.open(set, {}, *sealed));
    const auto fresh = rotated.seal(set, {}, 6, keyed());
    REQUIRE(fresh);
    CHECK(fresh->key_id == 2);
    CHECK(is_refused(sealer().open(set, {}, *fresh)));
}

TEST_CASE("the next epoch counts on far ahead, inbound from what was told; an epoch that is not later does not") {
    const auto sealed = sealer().seal(to_frame(a_request().parameters), {}, 5, keyed());
    REQUIRE(sealed);
    const auto next = Sealer::go_on(*sealed, 6);
    REQUIRE(next);
    CHECK(next->out == std::array<std::uint32_t, 2>{7 + kSequencesPerEpoch, 9 + kSequencesPerEpoch});
    CHECK(next->in == std::array<std::uint32_t, 2>{100, 3});
    CHECK(!Sealer::go_on(*sealed, 5));
    CHECK(!Sealer::go_on(*sealed, 4));
    CHECK(Sealer::go_on(*sealed, 4000));
    CHECK(!Sealer::go_on(*sealed, 5 + 4096));
}

TEST_CASE("all nodes of a cluster know calls by the same key, which another cluster or secret does not have") {
    CHECK(sealer().dialog_key() == sealer().dialog_key());
    CHECK(sealer().dialog_key() != sealer("away").dialog_key());
    CHECK(sealer().dialog_key() != sealer("home", kTwo).dialog_key());
    CHECK(sealer("home", kTwo + kOne).dialog_key() == sealer("home", kTwo).dialog_key());
    CHECK(sealer().dialog_key() != SipHashKey{});
}

TEST_CASE("a secret that is none is refused with its line") {
    for (const auto& [text, line] : {std::pair<std::string, std::string>{"x\n", "line 1"},
                                     {"\n# a comment\n0:" + std::string(64, 'a'), "line 3"},
                                     {"1:abcd\n", "line 1"},
                                     {kOne + kOne, "line 2"},
                                     {"1:" + std::string(64, 'g'), "line 1"},
                                     {"# nothing\n", "no key"}}) {
        const auto made = Sealer::from_text("home", text);
        REQUIRE(!made);
        CHECK(made.error().text.find(line) != std::string::npos);
    }
}
