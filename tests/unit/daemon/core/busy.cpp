// An overloaded core: what a 503 means, what RFC 7339 feedback holds back, and who is silent over TCP.
#include <doctest/doctest.h>

#include <string>

#include <fmt/format.h>

#include "daemon/core/busy.h"
#include "daemon/core/overload_control.h"
#include "daemon/core/silent_peers.h"
#include "tests/support/still_clock.h"

using namespace gmgate;
using namespace gmgate::daemon;
using gmgate::test::StillClock;

namespace {

const Endpoint kA = *Endpoint::parse("10.0.0.1:5060"), kB = *Endpoint::parse("[fd00::1]:5060");

std::string response(std::string_view via_parameters) {
    return fmt::format(
        "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 10.2.0.1:5060;branch=z9hG4bK1{}\r\nFrom: <sip:a@x>;tag=1\r\nTo: "
        "<sip:b@x>;tag=2\r\n"
        "Call-ID: c\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
        via_parameters);
}

std::optional<OverloadReport> report_of(std::string_view via_parameters) {
    const auto message = sip::OwnedMessage::parse(response(via_parameters));
    REQUIRE(message.has_value());
    return read_overload_report(*sip::top_via(**message));
}

void learn(OverloadControl& control, const Endpoint& element, std::string_view via_parameters) {
    const auto message = sip::OwnedMessage::parse(response(via_parameters));
    REQUIRE(message.has_value());
    control.learn(element, **message);
}

}  // namespace

TEST_CASE("503: one without Retry-After is one request's; a share of them makes the element rest, for a short time") {
    StillClock clock;
    Busy busy(clock);
    CHECK_FALSE(busy.refused(kA, std::nullopt));
    CHECK_FALSE(busy.is_resting(kA));
    for (int i = 0; i < 20; ++i) CHECK_FALSE(busy.answered(kA));
    for (int i = 0; i < 18; ++i) CHECK_FALSE(busy.refused(kA, std::nullopt));  // 19 of 39
    CHECK(busy.refused(kA, std::nullopt));
    CHECK(busy.is_resting(kA));
    CHECK_FALSE(busy.asked_for_rest(kA));
    CHECK_FALSE(busy.answered(kA));  // to what was sent before
    CHECK(busy.is_resting(kA));
    CHECK_FALSE(busy.is_resting(kB));
    clock.at += seconds{5};
    CHECK_FALSE(busy.is_resting(kA));
    clock.at += seconds{20};
    Busy calm(clock);
    CHECK_FALSE(calm.refused(kB, std::nullopt));
    clock.at += seconds{11};  // another ten seconds: nothing is added up over hours
    for (int i = 0; i < 4; ++i) CHECK_FALSE(calm.refused(kB, std::nullopt));
}

TEST_CASE("503 with Retry-After: the element rests for so long, a minute at most, unless it answers others well") {
    StillClock clock;
    Busy busy(clock);
    CHECK(busy.refused(kA, seconds{20}));
    CHECK(busy.asked_for_rest(kA));
    clock.at += seconds{19};
    CHECK(busy.asked_for_rest(kA));
    clock.at += seconds{1};
    CHECK_FALSE(busy.asked_for_rest(kA));
    CHECK(busy.refused(kB, seconds{86400}));
    clock.at += seconds{61};
    CHECK_FALSE(busy.is_resting(kB));

    Busy mixed(clock);
    for (int i = 0; i < 3; ++i) mixed.answered(kA);
    CHECK_FALSE(mixed.refused(kA, seconds{3600}));  // of an element behind it, most likely
    CHECK_FALSE(mixed.is_resting(kA));
}

TEST_CASE(
    "half open: after the rest one request finds out, the others wait for what it finds; a 503 doubles the rest") {
    StillClock clock;
    Busy busy(clock);
    for (int i = 0; i < 5; ++i) busy.refused(kA, std::nullopt);
    clock.at += seconds{5};
    CHECK_FALSE(busy.is_resting(kA));
    busy.sending(kA);
    CHECK(busy.is_resting(kA));  // for everybody else
    CHECK_FALSE(busy.refused(kA, std::nullopt));
    clock.at += seconds{9};
    CHECK(busy.is_resting(kA));
    clock.at += seconds{1};
    busy.sending(kA);
    SUBCASE("its answer ends it") {
        CHECK(busy.answered(kA));
        CHECK_FALSE(busy.is_resting(kA));
        CHECK_FALSE(busy.answered(kA));
        CHECK_FALSE(busy.refused(kA, std::nullopt));  // counted from the beginning
    }
    SUBCASE("it was lost: another one may") {
        clock.at += seconds{33};
        CHECK_FALSE(busy.is_resting(kA));
    }
}

TEST_CASE("503 to our own OPTIONS counts at once; the table has a limit") {
    StillClock clock;
    Busy busy(clock, 1);
    CHECK(busy.refused_ping(kA, std::nullopt));
    CHECK(busy.is_resting(kA));
    CHECK_FALSE(busy.refused_ping(kB, std::nullopt));
    CHECK_FALSE(busy.is_resting(kB));
    CHECK(busy.size() == 1);
    CHECK(retry_after_of("18000;duration=3600") == seconds{18000});
    CHECK(retry_after_of(" 5 (in a meeting)") == seconds{5});
    CHECK(retry_after_of("99999999999") == seconds{60});
    CHECK_FALSE(retry_after_of("soon").has_value());
    CHECK_FALSE(retry_after_of("").has_value());
}

TEST_CASE("RFC 7339 §4: the offer stands in our Via; what the element says there is read strictly") {
    const std::string offered = with_overload_offer(
        "OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/UDP 10.2.0.1:5060;branch=z9hG4bK1\r\nVia: SIP/2.0/UDP ue\r\n\r\n");
    CHECK(
        offered ==
        "OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/UDP 10.2.0.1:5060;branch=z9hG4bK1;oc;oc-algo=\"loss\"\r\nVia: SIP/2.0/UDP "
        "ue\r\n\r\n");
    CHECK(report_of(";oc=20;oc-algo=\"loss\";oc-validity=1000;oc-seq=1282321615.782") ==
          OverloadReport{20, milliseconds{1000}, {1282321615, 78200}});
    CHECK(report_of(";oc=100;oc-algo=\"loss\";oc-seq=7.1")->validity == milliseconds{500});
    for (const char* nothing :
         {";oc;oc-algo=\"loss\"", ";oc=101;oc-algo=\"loss\";oc-seq=1.1", ";oc=-1;oc-algo=\"loss\";oc-seq=1.1",
          ";oc=20;oc-algo=\"rate\";oc-seq=1.1", ";oc=20;oc-seq=1.1", ";oc=20;oc-algo=\"loss\"",
          ";oc=20;oc-algo=\"loss\";oc-seq=1.1;oc-validity=x", ""})
        CHECK_MESSAGE(!report_of(nothing).has_value(), nothing);
}

TEST_CASE("RFC 7339 §7: the share that an element asks for is held back until its time is over, or it takes it back") {
    StillClock clock;
    std::uint64_t dice = 0;
    OverloadControl control(clock, [&](std::uint64_t) { return dice = (dice + 37) % 100; });
    const auto held = [&] {
        int count = 0;
        for (int i = 0; i < 100; ++i) count += control.must_hold_back(kA);
        return count;
    };
    CHECK(held() == 0);
    learn(control, kA, ";oc=20;oc-algo=\"loss\";oc-validity=1000;oc-seq=10.5");
    CHECK(held() == 20);
    CHECK_FALSE(control.must_hold_back(kB));
    learn(control, kA, ";oc=90;oc-algo=\"loss\";oc-validity=1000;oc-seq=10.49");  // overtaken
    CHECK(held() == 20);
    learn(control, kA, ";oc;oc-algo=\"loss\"");  // nothing new
    CHECK(held() == 20);
    learn(control, kA, ";oc=100;oc-algo=\"loss\";oc-validity=1000;oc-seq=10.51");
    CHECK(held() == 100);
    learn(control, kA, ";oc=0;oc-algo=\"loss\";oc-validity=0;oc-seq=11.0");
    CHECK(held() == 0);
    learn(control, kA, ";oc=50;oc-algo=\"loss\";oc-validity=1000;oc-seq=12.0");
    CHECK(held() == 50);
    clock.at += milliseconds{1000};
    CHECK(held() == 0);
    learn(control, kA, ";oc=30;oc-algo=\"loss\";oc-validity=1000;oc-seq=1.0");  // it has started anew
    CHECK(held() == 30);
}

TEST_CASE("RFC 7339 §5.2: our own overload is told to whom it was offered, in its own Via, and to nobody else") {
    const OverloadReport report{90, milliseconds{1000}, {17, 500}};
    CHECK(with_overload_report(response(";oc;oc-algo=\"loss,rate\";rport"), report) ==
          response(";rport;oc=90;oc-algo=\"loss\";oc-validity=1000;oc-seq=17.00500"));
    for (const char* others : {"", ";oc", ";oc;oc-algo=\"rate\"", ";oc-algo=\"loss\""})
        CHECK(with_overload_report(response(others), report) == response(others));
    CHECK(with_overload_report("no SIP", report) == "no SIP");
}

TEST_CASE("a peer that did not answer a SYN is not asked again for a while; then one request asks, the others do not") {
    StillClock clock;
    SilentPeers peers(clock, 1);
    const SilentPeers::Ends ends{kA, kB}, others{kB, kA};
    CHECK(peers.may_try(ends));
    peers.silent(ends);
    CHECK_FALSE(peers.may_try(ends));
    CHECK(peers.may_try(others));
    clock.at += seconds{30};
    CHECK(peers.may_try(ends));
    CHECK_FALSE(peers.may_try(ends));
    peers.silent(ends);
    clock.at += seconds{59};
    CHECK_FALSE(peers.may_try(ends));
    clock.at += seconds{1};
    CHECK(peers.may_try(ends));
    peers.heard(ends);
    CHECK(peers.may_try(ends));
    peers.silent(ends);
    peers.silent(others);  // no room: it is simply tried
    CHECK(peers.size() == 1);
    CHECK(peers.may_try(others));
}
