// The life of a registration as core, kernel and access link see it. Ref: TS 33.203 §6, §7.3, §7.4; TS 24.229 §5.2.2,
// §5.2.5.
#include <algorithm>
#include <set>

#include <doctest/doctest.h>

#include "tests/integration/scene.h"

using namespace gmgate::test;

namespace {

std::set<std::uint32_t> spis(const std::vector<KernelSa>& sas) {
    std::set<std::uint32_t> all;
    for (const auto& sa : sas) all.insert(sa.spi);
    return all;
}

/// ck and ik of every 401 that the core sent, as hexadecimal digits.
std::vector<std::string> keys_sent_by_core(const Lab& lab) {
    std::vector<std::string> keys;
    for (const auto& event : lab.core_log()) {
        if (event.value("event", "") != "message" || event.value("dir", "") != "out") continue;
        const auto raw = event.value("raw", "");
        for (const std::string name : {"ck=\"", "ik=\""})
            if (const auto at = raw.find(name); at != std::string::npos)
                keys.push_back(raw.substr(at + name.size(), 32));
    }
    return keys;
}

/// Registration from the first REGISTER to the last 200, with the access link under watch.
void check_life(const Access& access, const Pair& pair) {
    Lab lab(plain_lab());
    Capture link(lab.network.ue, Network::kUeLink);
    PhoneOptions options;
    options.user = 1;
    options.is_v6 = access.is_v6;
    options.is_tcp = access.is_tcp;
    Phone peer(lab, options);
    peer.demand_registered();
    check_combination(lab, peer, 0, pair, access);
    peer.deregister();
    CHECK(eventually([&] { return count_sas(lab.network.gw) == 0; }));

    // TS 33.203 §6.1: CK and IK never go to the phone.
    const auto keys = keys_sent_by_core(lab);
    CHECK(keys.size() >= 4);
    for (const auto& key : keys) {
        CHECK(link.find(key).empty());
        CHECK(lab.gateway_log().find(key) == std::string::npos);
    }
    // Only the first REGISTER and the 401 of each phone are in clear: no 200, no second REGISTER.
    CHECK(link.find("SIP/2.0 401").size() >= 1);
    CHECK(link.find("SIP/2.0 200").empty());
    CHECK(link.find("Security-Verify").empty());
    CHECK(lab.stop_gateway() == 0);
}

}  // namespace

TEST_SUITE("registration") {
    TEST_CASE("the 200 of a registration and of a deregistration come through ESP, IPv4 and UDP") {
        check_life({false, false}, kSha1AesCbc);
    }
    TEST_CASE("the same over IPv6 and TCP") { check_life({true, true}, kAesGcm); }

    TEST_CASE("without a preference of the phone the strongest pair is taken") {
        Lab lab(plain_lab());
        Phone phone(lab, {});
        phone.demand_registered();
        const auto sas = list_sas(lab.network.gw);
        REQUIRE(sas.size() == 4);
        for (const auto& sa : sas) CHECK(sa.aead == kAesGcm.aead);
    }

    TEST_CASE("a re-registration without challenge keeps the set and reaches the core as protected") {
        Lab lab(plain_lab());
        Phone phone(lab, {});
        phone.demand_registered();
        const auto before = spis(list_sas(lab.network.gw));
        const auto mark = lab.core_mark();
        phone.reregister(false);
        CHECK(spis(list_sas(lab.network.gw)) == before);
        const auto registers = lab.core_registers(mark);
        REQUIRE(registers.size() == 1);
        CHECK(registers[0]["integrity_protected"] == "yes");
        CHECK(registers[0]["sec_agree_leftovers"].empty());
        const auto word = unique_word("after-refresh-");
        CHECK(phone.message(phone.impu(), word) == 200);
        phone.await_message(word);
    }

    TEST_CASE(
        "a re-registration with challenge brings a new set; the old one stays for its grace and the new one is used") {
        Lab lab(plain_lab());
        Phone phone(lab, {});
        phone.demand_registered();
        const auto old = list_sas(lab.network.gw);
        REQUIRE(old.size() == 4);
        const auto mark = lab.core_mark();
        phone.reregister(true);
        const auto now = list_sas(lab.network.gw);
        INFO(show(now));
        CHECK(now.size() == 8);
        for (const auto& sa : old) CHECK(spis(now).contains(sa.spi));
        const auto registers = lab.core_registers(mark);
        REQUIRE(registers.size() == 2);
        CHECK(registers[0]["status"] == 401);
        CHECK(registers[0]["integrity_protected"] == "yes");
        CHECK(registers[1]["status"] == 200);
        CHECK(registers[1]["integrity_protected"] == "yes");

        const auto packets_of_old = [&] {
            std::uint64_t packets = 0;
            for (const auto& sa : list_sas(lab.network.gw))
                if (spis(old).contains(sa.spi)) packets += sa.packets;
            return packets;
        };
        const auto before = packets_of_old();
        const auto word = unique_word("over-the-new-set-");
        CHECK(phone.message(phone.impu(), word) == 200);
        phone.await_message(word);
        CHECK(packets_of_old() == before);
        // A third one: at most three sets, and it still works.
        phone.reregister(true);
        CHECK(count_sas(lab.network.gw) <= 12);
        phone.deregister();
        CHECK(eventually([&] { return count_sas(lab.network.gw) == 0; }));
    }

    TEST_CASE("a wrong RES is refused, and the temporary set goes") {
        Lab lab(plain_lab());
        PhoneOptions options;
        options.arguments = {"--wrong-res"};
        Phone phone(lab, options);
        INFO(phone.first().dump());
        CHECK(phone.first().value("event", "") == "register_failed");
        CHECK(phone.first().value("status", 0) == 403);
        CHECK(lab.core_registers().size() == 2);
        CHECK(lab.core_registers().back()["status"] == 403);
        CHECK(eventually([&] { return count_sas(lab.network.gw) == 0; }));
    }

    TEST_CASE("a phone with another IK never gets through the SAs") {
        Lab lab(plain_lab());
        PhoneOptions options;
        options.offer = kSha1AesCbc.offer();
        options.arguments = {"--wrong-ik", "--timeout", "5"};
        Phone phone(lab, options);
        CHECK(phone.first().value("reason", "") == "timeout");
        CHECK(xfrm_counters(lab.network.gw).at("XfrmInStateProtoError") > 0);
        CHECK(lab.core_registers().size() == 1);
    }

    TEST_CASE("a resynchronisation (AUTS) leads to a registration") {
        Lab lab(plain_lab());
        PhoneOptions options;
        options.arguments = {"--auts"};
        Phone phone(lab, options);
        phone.demand_registered();
        const auto registers = lab.core_registers();
        CHECK(std::ranges::any_of(registers, [](const auto& event) { return event["has_auts"] == true; }));
        CHECK(registers.back()["status"] == 200);
        CHECK(registers.back()["integrity_protected"] == "yes");
    }
}

TEST_SUITE("bad-input") {
    TEST_CASE("TS 33.226 §4.2.2.3: bidding down gets 494 and the second REGISTER never reaches the core") {
        for (int attack = 1; attack <= 4; ++attack) {
            INFO("case " << attack);
            Lab lab(plain_lab());
            PhoneOptions options;
            options.arguments = {"--bid-down", std::to_string(attack)};
            Phone phone(lab, options);
            INFO(phone.first().dump());
            CHECK(phone.first().value("status", 0) == 494);
            CHECK(lab.core_registers().size() == 1);
            CHECK(lab.core_registers().front()["has_response"] == false);
        }
    }
}

TEST_SUITE("essentials") {
    TEST_CASE("a phone registers, talks and leaves over IPv4 and UDP; only ESP shows on the link") {
        check_life({false, false}, kSha1AesCbc);
    }
    TEST_CASE("a phone registers, talks and leaves over IPv6 and TCP; only ESP shows on the link") {
        check_life({true, true}, kAesGcm);
    }
}
