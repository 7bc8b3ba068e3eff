// The engine's protocol as bytes: values come back as they went, and whatever is cut, longer or touched is refused and
// never half read.
#include <cerrno>

#include <doctest/doctest.h>

#include "tests/support/engine_world.h"
#include "xfrm/engine/frames.h"
#include "xfrm/engine/rules.h"

using namespace gmgate;
using namespace gmgate::xfrm;
using namespace gmgate::test;

TEST_CASE("every value survives its frame") {
    const auto request = a_request();
    const auto set = value_of(to_frame(request.parameters));
    REQUIRE(set);
    CHECK(*set == request.parameters);

    auto install = to_frame(request, ReqId{21321});
    const auto order = take_value_of(install);
    REQUIRE(order);
    CHECK(order->request.parameters == request.parameters);
    CHECK(order->request.mark == request.mark);
    CHECK(order->request.lifetime == request.lifetime);
    CHECK(std::ranges::equal(order->request.keys.integrity.expose(), request.keys.integrity.expose()));
    CHECK(std::ranges::equal(order->request.keys.confidentiality.expose(), request.keys.confidentiality.expose()));

    SaReport report;
    report.sa = four_sas(request.parameters)[1];
    report.mark = Mark{7};
    report.algorithms = request.parameters.algorithms;
    report.packets = 1;
    report.bytes = 2;
    report.replay_window_drops = 3;
    report.replay_drops = 4;
    report.integrity_failures = 5;
    report.added = std::chrono::system_clock::time_point(std::chrono::seconds(6));
    report.hard_lifetime = std::chrono::seconds(7);
    const auto told = value_of(to_frame(report));
    REQUIRE(told);
    CHECK(told->sa.id == report.sa.id);
    CHECK(told->sa.direction == Direction::out);
    CHECK(told->sa.source == report.sa.source);
    CHECK(told->sa.destination == report.sa.destination);
    CHECK((told->packets == 1 && told->bytes == 2 && told->replay_window_drops == 3 && told->replay_drops == 4 &&
           told->integrity_failures == 5));
    CHECK((told->added == report.added && told->hard_lifetime == report.hard_lifetime && told->mark == report.mark));

    KernelEvent event;
    event.kind = KernelEvent::Kind::policy_replaced;
    event.guard = {Direction::out, *Endpoint::parse("[2001:db8::9]:6100")};
    const auto heard = value_of(to_frame(event));
    REQUIRE(heard);
    CHECK(heard->kind == event.kind);
    CHECK(heard->guard == event.guard);

    const auto outcome = value_of(to_frame(failure(Reaction::refused, std::string(1000, 'x'), ENOENT), {}));
    REQUIRE(outcome);
    REQUIRE(!*outcome);
    CHECK(outcome->error().reaction == Reaction::refused);
    CHECK(outcome->error().code == ENOENT);
    CHECK(outcome->error().text == std::string(GM_TEXT_LIMIT - 1, 'x'));
}

TEST_CASE("no key is left in an install frame that was read, whether it was good or not") {
    for (const bool is_good : {true, false}) {
        auto install = to_frame(a_request(), ReqId{21321});
        if (!is_good) install.lifetime = 0;
        CHECK(take_value_of(install).has_value() == is_good);
        for (const auto octet : install.integrity) CHECK(octet == 0);
        for (const auto octet : install.confidentiality) CHECK(octet == 0);
        for (const auto octet : install.combined) CHECK(octet == 0);
    }
}

TEST_CASE("an install frame with a wrong word, port, SPI or key length is no value") {
    const auto broken = [](auto&& change) {
        auto install = to_frame(a_request(), ReqId{21321});
        change(install);
        return !take_value_of(install).has_value();
    };
    CHECK_FALSE(broken([](gm_install&) {}));
    CHECK(broken([](gm_install& i) { i.set.ue.family = 5; }));
    CHECK(broken([](gm_install& i) { i.set.ue.octets[4] = 1; }));  // an IPv4 address has four
    CHECK(broken([](gm_install& i) { i.set.gateway.family = 6; }));
    CHECK(broken([](gm_install& i) { i.set.port_us = 0; }));
    CHECK(broken([](gm_install& i) { i.set.spi_pc = 0; }));
    CHECK(broken([](gm_install& i) { i.set.spi_ps = i.set.spi_pc; }));
    CHECK(broken([](gm_install& i) { i.set.pair.alg = 4; }));
    CHECK(broken([](gm_install& i) { i.set.pair = to_frame(AlgorithmPair{Alg::null, Ealg::null}); }));
    CHECK(broken([](gm_install& i) { i.set.pair.reserved[1] = 1; }));
    CHECK(broken([](gm_install& i) { i.reserved = 1; }));
    CHECK(broken([](gm_install& i) { i.integrity_size = 21; }));
    CHECK(broken([](gm_install& i) { i.integrity_size = 16; }));  // an octet behind the key
    CHECK(broken([](gm_install& i) { i.combined[0] = 1; }));
    CHECK(broken([](gm_install& i) { i.confidentiality_size = 255; }));
}

TEST_CASE("a configuration of many ports comes in parts, and no part may differ or be cut") {
    auto configuration = a_configuration();
    for (int i = 0; i < 2000; ++i)
        configuration.ports.push_back({*Address::parse("2001:db8::" + std::to_string(i + 1)), Port{6100}, Port{6105}});
    const auto frames = configuration_frames(configuration);
    CHECK(frames.size() > 2);
    EngineConfiguration told;
    for (std::size_t i = 0; i < frames.size(); ++i) {
        CHECK(frames[i].size() <= GM_FRAME_LIMIT);
        const auto is_last = add_configuration(told, frames[i], i == 0);
        REQUIRE(is_last);
        CHECK(*is_last == (i + 1 == frames.size()));
    }
    CHECK(told == configuration);

    auto other = a_configuration();
    other.owner.reqid = ReqId{1};
    EngineConfiguration first;
    REQUIRE(add_configuration(first, frames[0], true));
    CHECK_FALSE(add_configuration(first, configuration_frames(other)[0], false));
    for (std::size_t size = 0; size < frames[0].size(); ++size) {
        EngineConfiguration ignored;
        CHECK_FALSE(add_configuration(ignored, std::span(frames[0]).first(size), true));
    }
}

TEST_CASE("the rules: only our reqid, marks, SPIs, addresses and ports") {
    const EngineRules rules(a_configuration());
    const auto refused = [&](auto&& change) {
        auto request = a_request();
        change(request);
        const auto result = rules.check_install(request, ReqId{21321});
        return !result && result.error().code == EPERM && result.error().reaction == Reaction::refused;
    };
    CHECK_FALSE(refused([](SetRequest&) {}));
    CHECK(refused([](SetRequest& r) { r.mark = Mark{0}; }));
    CHECK(refused([](SetRequest& r) { r.mark = Mark{0x01000001}; }));
    CHECK(refused([](SetRequest& r) { r.parameters.spi_pc = Spi{0xc0000000}; }));
    CHECK(refused([](SetRequest& r) { r.parameters.spi_ps = Spi{4096}; }));
    CHECK(refused([](SetRequest& r) { r.parameters.gateway = *Address::parse("192.0.2.77"); }));
    CHECK(refused([](SetRequest& r) { r.parameters.port_ps = Port{22}; }));
    CHECK(refused([](SetRequest& r) { r.parameters.port_pc = Port{6106}; }));
    CHECK(refused([](SetRequest& r) { r.parameters.ue = r.parameters.gateway; }));
    CHECK(refused([](SetRequest& r) { r.parameters.ue = *Address::parse("224.0.0.1"); }));
    CHECK(rules.check_install(a_request(), ReqId{21322}).error().code == EPERM);
    CHECK(rules.check_guards({*Address::parse("192.0.2.9"), {Port{6100}, Port{6105}}}));
    CHECK(rules.check_guards({*Address::parse("192.0.2.9"), {Port{6100}, Port{22}}}).error().code == EPERM);
    CHECK(rules.check_guards({*Address::parse("192.0.2.10"), {Port{6100}}}).error().code == EPERM);
}

TEST_CASE("what a hostile engine tells is refused where it has reserved octets or times that no clock holds") {
    auto guard = to_frame(GuardPolicy{Direction::in, {*Address::parse("192.0.2.9"), Port{6100}}});
    CHECK(value_of(guard));
    guard.reserved = 1;
    CHECK_FALSE(value_of(guard));
    KernelEvent deleted;
    deleted.kind = KernelEvent::Kind::sas_flushed;
    auto event = to_frame(deleted);
    CHECK(value_of(event));
    event.reserved = 1;
    CHECK_FALSE(value_of(event));
    SaReport report;
    report.sa = four_sas(a_request().parameters)[0];
    report.algorithms = a_request().parameters.algorithms;
    auto told = to_frame(report);
    CHECK(value_of(told));
    for (const std::int64_t added : {INT64_MAX, INT64_MIN, std::int64_t{9'300'000'000}}) {
        told.added = added;
        CHECK_FALSE(value_of(told));
    }
    told.added = 1'700'000'000;
    told.hard_lifetime = UINT64_MAX;
    CHECK_FALSE(value_of(told));
}
