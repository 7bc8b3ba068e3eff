// Emergency calls that are known again: the way in their token, whose the marks are, and how the table takes them back.
#include "daemon/proxy/emergency_marks.h"

#include <doctest/doctest.h>

#include <fmt/format.h>

#include "daemon/proxy/emergency.h"
#include "tests/support/still_clock.h"

using namespace gmgate;
using namespace gmgate::daemon;
using gmgate::test::StillClock;

namespace {

sip::Flow way(sip::Transport transport, const char* local, const char* remote) {
    sip::Flow flow;
    flow.transport = transport;
    flow.local = *Endpoint::parse(local);
    flow.remote = *Endpoint::parse(remote);
    return flow;
}

const sip::Flow kPhone = way(sip::Transport::udp, "192.0.2.1:5060", "198.51.100.7:5062");

EmergencyDialog shown(const std::string& token, const std::string& call_id, const std::string& tag = "psap") {
    EmergencyDialog dialog;
    dialog.token = token;
    dialog.call_id = call_id;
    dialog.ue_tag = "a1";
    dialog.ue = kPhone;
    dialog.legs.push_back({tag, {"<sip:ecscf;lr>"}, {"sip:psap@10.0.0.9"}});
    return dialog;
}

}  // namespace

TEST_CASE("the token of an emergency call names the phone's way, over every transport and both families") {
    for (const auto transport : {sip::Transport::udp, sip::Transport::tcp, sip::Transport::tls})
        for (const auto& [local, remote] : {std::pair("192.0.2.1:5060", "198.51.100.255:65535"),
                                            std::pair("[2001:db8::1]:5061", "[2001:db8:ffff::a]:1")}) {
            const auto flow = way(transport, local, remote);
            const auto token = emergency_token(flow);
            CHECK(token != emergency_token(flow));  // each call has its own
            CHECK(token.find_first_of(".@;") == std::string::npos);
            REQUIRE(way_in_token(token).has_value());
            CHECK(*way_in_token(token) == flow);
            CHECK_FALSE(way_in_token(token.substr(0, token.size() - 1)).has_value());
            CHECK_FALSE(way_in_token(token + "0").has_value());
            for (const char other : {'x', '.', '-', ' '}) {
                auto bent = token;
                bent[bent.size() - 3] = other;
                CHECK_FALSE(way_in_token(bent).has_value());
            }
        }
    for (const char* nothing : {"", "sos", "sos-u", "sosaaaaaaaaaaaaaaaaaaaaaaaa", "sosaaaaaaaaaaaaaaaaaaaaaaaa-u",
                                "sosaaaaaaaaaaaaaaaaaaaaaaaa-x0a0000010a0000020000", "0123456789abcdef"})
        CHECK_FALSE(way_in_token(nothing).has_value());
}

TEST_CASE("the owner of an emergency call's marks: the call, the phone's tag, and where its requests may go") {
    const auto owner = emergency_owner("t", "a1", "sip:Psap@ECSCF.example;transport=tcp");
    CHECK(owner == emergency_owner("t", "a1", "sip:Psap@ecscf.example:5060"));
    CHECK(owner != emergency_owner("t", "a1", "sip:psap@ecscf.example"));  // the user part counts letter by letter
    CHECK(owner != emergency_owner("t", "a1", "sip:Psap@ecscf.example:5070"));
    CHECK(owner != emergency_owner("t", "a2", "sip:Psap@ecscf.example"));
    CHECK(owner != emergency_owner("u", "a1", "sip:Psap@ecscf.example"));
    CHECK(owner != emergency_owner("t", "a1", {}));
}

TEST_CASE(
    "an emergency call that is known again has its leg, gives way until it is answered, and takes nobody's place") {
    StillClock clock;
    EmergencyDialogs dialogs(clock, {.calls = 2, .unanswered_per_source = 2});
    const auto first = emergency_token(kPhone), second = emergency_token(kPhone), third = emergency_token(kPhone);
    CHECK(dialogs.revive(shown(first, "c1")));
    const auto* known = dialogs.find_by_token(first);
    REQUIRE(known != nullptr);
    REQUIRE(known->leg("psap") != nullptr);
    CHECK(known->leg("psap")->route == std::vector<std::string>{"<sip:ecscf;lr>"});
    CHECK_FALSE(dialogs.revive(shown(first, "c1", "fork")));  // known: another leg of it
    CHECK(dialogs.find_by_token(first)->leg("fork") != nullptr);
    CHECK_FALSE(dialogs.revive(shown(second, "c1")));  // another call with its Call-ID and tag
    CHECK(dialogs.find_by_token(second) == nullptr);

    dialogs.answered(first);
    CHECK(dialogs.revive(shown(second, "c2")));
    CHECK(dialogs.revive(shown(third, "c3")));  // no room: the unanswered one gives way
    CHECK(dialogs.find_by_token(second) == nullptr);
    CHECK(dialogs.find_by_token(first) != nullptr);
    dialogs.answered(third);
    CHECK_FALSE(dialogs.revive(shown(second, "c2")));  // answered calls never do
    CHECK(dialogs.size() == 2);
}
