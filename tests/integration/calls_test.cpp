// A call between two phones, each behind its own SAs: INVITE, provisional answer, 200, ACK, BYE.
#include <doctest/doctest.h>

#include "tests/integration/scene.h"

using namespace gmgate::test;

namespace {

void check_call(const Access& from, const Access& to) {
    Lab lab(plain_lab());
    Capture link(lab.network.ue, Network::kUeLink);
    PhoneOptions options;
    options.is_v6 = from.is_v6;
    options.is_tcp = from.is_tcp;
    Phone caller(lab, options);
    options.user = 1;
    options.is_v6 = to.is_v6;
    options.is_tcp = to.is_tcp;
    Phone callee(lab, options);
    caller.demand_registered();
    callee.demand_registered();
    const auto mark = lab.core_mark();
    const auto outcome = caller.call(callee.impu());
    INFO(outcome.dump());
    CHECK(outcome.value("event", "") == "call_ended");
    CHECK(outcome.value("ok", false));
    for (const char* method : {"INVITE", "ACK", "BYE"}) CHECK(lab.core_received(mark, method).size() >= 1);
    for (const auto& raw : lab.core_received(mark, "INVITE")) {
        INFO(raw);
        CHECK(raw.find("Security-Verify") == std::string::npos);
        CHECK(raw.find("P-Asserted-Identity: ") != std::string::npos);
    }
    CHECK(link.find("INVITE sip:").empty());
    CHECK(count_sas(lab.network.gw) == 8);
}

bool is_call_event(const nlohmann::json& event, const char* name) { return event.value("event", "") == name; }

/// A dialog that lives through two re-authentications of both ends, with old sets that end meanwhile.
void check_long_call(const Access& from, const Access& to) {
    auto lab_options = plain_lab();
    lab_options.more_sections = "[timers]\nold-set = 2\n";
    Lab lab(lab_options);
    Capture link(lab.network.ue, Network::kUeLink);
    Phone caller(lab, {.is_v6 = from.is_v6, .is_tcp = from.is_tcp});
    Phone callee(lab, {.user = 1, .is_v6 = to.is_v6, .is_tcp = to.is_tcp});
    caller.demand_registered();
    callee.demand_registered();
    const auto call = caller.command("call " + callee.impu() + " 600", [](const nlohmann::json& e) { return is_call_event(e, "call_established") || is_call_event(e, "call_failed"); });
    INFO(call.dump());
    REQUIRE(call.value("event", "") == "call_established");
    callee.await_event([](const nlohmann::json& e) { return is_call_event(e, "call_established"); }, "the ACK");
    for (int i = 0; i < 2; ++i) {
        for (Phone* phone : {&caller, &callee}) {
            phone->reregister(true);
            const auto word = unique_word("in-call-");
            CHECK(phone->message((phone == &caller ? callee : caller).impu(), word) == 200);
            (phone == &caller ? callee : caller).await_message(word);
            CHECK(link.find(word).empty());
        }
        CHECK(eventually([&] { return count_sas(lab.network.gw) == 8; }));  // the old sets are gone
    }
    // The end of it in either direction: the BYE finds the other end over sets that did not exist when the call began.
    Phone& hanging_up = from.is_tcp ? callee : caller;
    const auto ended = hanging_up.command("hangup", [](const nlohmann::json& e) { return is_call_event(e, "call_ended"); });
    INFO(ended.dump());
    CHECK(ended.value("ok", false));
    Phone& other = from.is_tcp ? caller : callee;
    const auto heard = other.await_event([](const nlohmann::json& e) { return is_call_event(e, "call_ended"); }, "the BYE");
    CHECK(heard.value("by", "") == "remote");
    CHECK(link.find("BYE sip:").empty());
    CHECK(link.find("INVITE sip:").empty());
}

}  // namespace

TEST_SUITE("calls") {
    TEST_CASE("a call over UDP lives through two re-authentications of both phones") { check_long_call({false, false}, {true, false}); }
    TEST_CASE("a call over TCP lives through two re-authentications of both phones") { check_long_call({true, true}, {false, true}); }
    TEST_CASE("two phones over IPv4 and UDP call each other") { check_call({false, false}, {false, false}); }
    TEST_CASE("a phone over IPv4 and TCP calls one over IPv6 and UDP") { check_call({false, true}, {true, false}); }
    TEST_CASE("a phone over IPv6 and UDP calls one over IPv6 and TCP") { check_call({true, false}, {true, true}); }
}
