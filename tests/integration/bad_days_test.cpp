// Bad days on the real kernel: phones that vanish in the middle of a call, a storm of copies through an SA, a call that nobody
// answers. The right final responses, no transaction that stays, and a gateway that goes on. (What takes Timer B of the access side, 128 s,
// or Timer C is in tests/unit/daemon_proxy_bad_days.cpp with short timers.)
#include <doctest/doctest.h>

#include <algorithm>

#include <fmt/format.h>

#include "tests/integration/tls_lab.h"

using namespace gmgate::test;

namespace {

using Event = nlohmann::json;

auto named(const std::string& name) {
    return [name](const Event& event) { return event.value("event", "") == name; };
}

Event await(Phone& phone, const std::string& name, std::size_t from = 0) { return phone.await_event(named(name), name, from); }

std::vector<Event> events_of(Phone& phone, const std::string& name, std::size_t from = 0) {
    std::vector<Event> found;
    for (const auto& line : phone.program().lines(from)) {
        if (!line.starts_with('{')) continue;
        auto event = Event::parse(line);
        if (event.value("event", "") == name) found.push_back(std::move(event));
    }
    return found;
}

void await_count(Phone& phone, const std::string& name, std::size_t count) {
    INFO("waiting for " << count << " " << name << ":\n" << phone.program().tail());
    REQUIRE(eventually([&] { return events_of(phone, name).size() == count; }));
}

/// A pair of fresh phones calls, texts and hangs up: the gateway serves as if nothing had been.
void check_goes_on(Lab& lab, std::size_t user) {
    Phone a(lab, {.user = user}), b(lab, {.user = user + 1, .is_tcp = true});
    a.demand_registered();
    b.demand_registered();
    CHECK(a.call(b.impu()).value("event", "") == "call_ended");
    const auto word = unique_word("goes-on-");
    CHECK(b.message(a.impu(), word) == 200);
    a.await_message(word);
}

/// Takes the inbound SAs of a phone out of its own kernel: it hears nothing any more, and does not know.
void deafen(Lab& lab, Phone& phone) {
    for (const char* spi : {"spi_uc", "spi_us"})
        lab.network.ue.run(fmt::format("ip xfrm state delete src {} dst {} proto esp spi {}", Network::kAccess4, Network::kUe4, phone.first().at(spi).get<std::uint32_t>()));
}

}  // namespace

TEST_SUITE("bad-days") {
    TEST_CASE("phones vanish or are silent in an INVITE and before a BYE, over SAs: the callers get 487 and 504, and the gateway goes on") {
        Lab lab(plain_lab());
        Phone a(lab, {.user = 0, .arguments = {"--timeout", "60"}});
        Phone killed(lab, {.user = 1, .arguments = {"--answer-after", "600"}});
        Phone c(lab, {.user = 2, .is_tcp = true, .arguments = {"--timeout", "60"}});
        Phone deaf(lab, {.user = 3});
        Phone e(lab, {.user = 4, .arguments = {"--timeout", "60"}});
        Phone silent(lab, {.user = 5, .arguments = {"--answer-after", "600", "--no-ring"}});
        for (Phone* phone : {&a, &killed, &c, &deaf, &e, &silent}) phone->demand_registered();
        e.program().write_line("call " + silent.impu() + " 600");
        await(silent, "call_incoming");
        c.program().write_line("call " + deaf.impu() + " 600");
        await(c, "call_established");
        await(deaf, "call_established");
        a.program().write_line("call " + killed.impu() + " 600");
        await(a, "call_ringing");

        killed.program().kill();
        deafen(lab, deaf);
        c.program().write_line("hangup");
        a.program().write_line("cancel");
        e.program().write_line("cancel");  // not passed on to a phone that has not answered anything yet (§9.1)
        CHECK(await(a, "cancel_sent").value("status", 0) == 200);
        // All after 64*T1 of the core's side: RFC 3261 §9.1 for the INVITE, C-66 for the BYE.
        CHECK(await(a, "call_failed").value("status", 0) == 487);
        CHECK(await(c, "call_ended").value("status", 0) == 504);
        CHECK(await(e, "call_failed").value("status", 0) == 487);
        CHECK(events_of(a, "call_failed").size() == 1);
        check_goes_on(lab, 6);
    }

    TEST_CASE("the caller vanishes while it rings: the callee gives up by itself, and the gateway goes on") {
        Lab lab(plain_lab());
        Phone caller(lab, {.user = 0});
        Phone callee(lab, {.user = 1, .arguments = {"--answer-after", "1", "--timeout", "6"}});
        caller.demand_registered();
        callee.demand_registered();
        caller.program().write_line("call " + callee.impu() + " 600");
        await(caller, "call_ringing");
        caller.program().kill();
        CHECK(await(callee, "call_ended").value("by", "") == "no-ack");
        check_goes_on(lab, 2);
    }

    TEST_CASE("phones on TLS that vanish before they answer many calls: 480 to each at once, and a small table of transactions does not fill up") {
        // 8 calls a round: their transactions towards the core stay until Timer D, 48 in all; if those towards the phones stayed as well, the table
        // would be full before the last round, and the answer 503.
        TlsLab tls({.more_sections = "[limits]\ntransactions = 80\nemergency-reserve = 0\n"});
        Lab& lab = *tls.lab;
        constexpr std::size_t kCalls = 8, kRounds = 6;
        auto caller_options = PhoneOptions{.user = 0, .arguments = tls.phone_arguments("tls-prior", "1.3")};
        Phone caller(lab, caller_options);
        caller.demand_registered();
        for (std::size_t round = 0; round < kRounds; ++round) {
            INFO("round ", round);
            auto options = PhoneOptions{.user = 1, .arguments = tls.phone_arguments("tls-prior", "1.3")};
            options.arguments.insert(options.arguments.end(), {"--answer-after", "600", "--no-ring"});
            Phone callee(lab, options);
            callee.demand_registered();
            for (std::size_t i = 0; i < kCalls; ++i) caller.program().write_line("call " + callee.impu() + " 600");
            await_count(callee, "call_incoming", kCalls);
            callee.program().kill();
            await_count(caller, "call_failed", (round + 1) * kCalls);
        }
        for (const auto& failed : events_of(caller, "call_failed")) CHECK(failed.value("status", 0) == 480);
        CHECK(tls.in_kernel(1));
    }

    TEST_CASE("a storm of copies of each request through an SA: the core gets each once, and the phone one answer to each") {
        Lab lab(plain_lab());
        Phone storm(lab, {.user = 0, .arguments = {"--copies", "300"}});
        Phone quiet(lab, {.user = 1});
        storm.demand_registered();
        quiet.demand_registered();
        const auto mark = lab.core_mark();
        const auto word = unique_word("storm-");
        CHECK(storm.message(quiet.impu(), word) == 200);
        CHECK(storm.call(quiet.impu()).value("event", "") == "call_ended");
        check_goes_on(lab, 2);
        const auto messages = lab.core_received(mark, "MESSAGE");
        CHECK(std::ranges::count_if(messages, [&](const std::string& raw) { return raw.find(word) != std::string::npos; }) == 1);
        CHECK(events_of(quiet, "message_received").size() == 1);
        CHECK(events_of(quiet, "call_incoming").size() == 1);
        CHECK(events_of(storm, "message_sent").size() == 1);
    }

    TEST_CASE("nobody answers, and the callee's own timer ends it: its 408 is passed on") {
        Lab lab(plain_lab());
        Phone a(lab, {.user = 0});
        Phone timed(lab, {.user = 2, .is_tcp = true, .arguments = {"--reject", "408", "--answer-after", "1"}});
        for (Phone* phone : {&a, &timed}) phone->demand_registered();
        const auto from = a.mark();
        a.program().write_line("call " + timed.impu() + " 600");
        CHECK(await(a, "call_failed", from).value("status", 0) == 408);
        await(timed, "failure_acknowledged");
    }
}
