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

}  // namespace

TEST_SUITE("calls") {
    TEST_CASE("two phones over IPv4 and UDP call each other") { check_call({false, false}, {false, false}); }
    TEST_CASE("a phone over IPv4 and TCP calls one over IPv6 and UDP") { check_call({false, true}, {true, false}); }
    TEST_CASE("a phone over IPv6 and UDP calls one over IPv6 and TCP") { check_call({true, false}, {true, true}); }
}
