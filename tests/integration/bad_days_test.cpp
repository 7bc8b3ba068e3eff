// Bad days on the real kernel: phones that vanish in the middle of a call, links that lose everything for a while, SAs
// that somebody deletes, a storm of copies from either side, a call that nobody answers. The right final responses, no
// transaction that stays, and a gateway that goes on. (What takes Timer B of the access side, 128 s, is in
// tests/unit/daemon/proxy/bad_days.cpp with short timers.)
#include <doctest/doctest.h>

#include <algorithm>
#include <csignal>
#include <memory>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "tests/integration/tls_lab.h"

using namespace gmgate::test;

namespace {

using Event = nlohmann::json;

auto named(const std::string& name) {
    return [name](const Event& event) { return event.value("event", "") == name; };
}

Event await(Phone& phone, const std::string& name, std::size_t from = 0) {
    return phone.await_event(named(name), name, from);
}

void await_count(Phone& phone, const std::string& name, std::size_t count) {
    INFO("waiting for " << count << " " << name << ":\n" << phone.program().tail());
    REQUIRE(eventually([&] { return phone.events(name).size() == count; }));
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

/// A link that loses every IPv4 packet in both directions, and no end notices: frames go to a station that is not
/// there.
class Cut {
public:
    Cut(const Namespace& a, const char* a_link, const char* a_address, const Namespace& b, const char* b_link,
        const char* b_address)
        : ends_{{&a, fmt::format("{} dev {}", b_address, a_link)}, {&b, fmt::format("{} dev {}", a_address, b_link)}} {
        for (const auto& [network, neighbour] : ends_)
            network->run("ip neigh replace " + neighbour + " lladdr 02:00:00:00:00:99 nud permanent");
    }
    Cut(const Cut&) = delete;
    Cut& operator=(const Cut&) = delete;
    ~Cut() {
        for (const auto& [network, neighbour] : ends_) network->run("ip neigh del " + neighbour);
    }
    static auto access(Lab& lab) {
        return std::make_unique<Cut>(lab.network.ue, Network::kUeLink, Network::kUe4, lab.network.gw,
                                     Network::kAccessLink, Network::kAccess4);
    }
    static auto core(Lab& lab) {
        return std::make_unique<Cut>(lab.network.gw, "core", Network::kGwCore4, lab.network.core, "core0",
                                     Network::kCore4);
    }

private:
    std::vector<std::pair<const Namespace*, std::string>> ends_;
};

/// TCP towards the core, without pings: a transaction that is over leaves nothing for Timer D or K.
LabOptions tcp_core() {
    auto options = plain_lab();
    options.core_transport = "tcp";
    options.core_lines = "ping-interval = 0\n";
    return options;
}

/// Waits until no client transaction is left, and server transactions are as few as before (REGISTERs over UDP stay for
/// Timer J, 128 s).
bool transactions_end(const Lab& lab, int before) {
    return eventually([&] {
        const auto transactions = gateway_status(lab).at("transactions");
        return transactions.at("client") == 0 && transactions.at("server").get<int>() <= before;
    });
}

/// Takes the inbound SAs of a phone out of its own kernel: it hears nothing any more, and does not know.
void deafen(Lab& lab, Phone& phone) {
    for (const char* spi : {"spi_uc", "spi_us"})
        lab.network.ue.run(fmt::format("ip xfrm state delete src {} dst {} proto esp spi {}", Network::kAccess4,
                                       Network::kUe4, phone.first().at(spi).get<std::uint32_t>()));
}

}  // namespace

TEST_SUITE("bad-days") {
    TEST_CASE("the reader of the log goes, or reads nothing: the gateway serves on, and no SIGPIPE ends it") {
        for (const char* reader : {"head -n 1", "sleep 30"}) {
            CAPTURE(reader);
            auto options = plain_lab();
            options.is_gateway_started = false;
            Lab lab(options);
            const std::string pid_file = make_temporary_folder() + "/pid";
            const std::string command = fmt::format("sh -c 'echo $$ >{}; exec {} --config {} 2>&1' | {}", pid_file,
                                                    lab.programs().gmgated, lab.config_path(), reader);
            Program gateway({.command = {"sh", "-c", command}, .name = "gmgated", .network = &lab.network.gw});
            const auto is_serving = [&] {
                try {
                    return gateway_status(lab).contains("transactions");
                } catch (const std::exception&) {
                    return false;  // not yet
                }
            };
            REQUIRE(eventually(is_serving));
            Phone one(lab, {}), two(lab, {.user = 1, .is_v6 = true});
            one.demand_registered();
            two.demand_registered();
            for (int i = 0; i < 30; ++i)  // a line or more each, at level debug: a pipe holds 64 KiB
                CHECK(two.message(one.impu(), repeated("filling-the-pipe-", 800)) == 200);
            CHECK(is_serving());
            run_program({.command = {"sh", "-c", "kill $(cat " + pid_file + ")"}, .name = "kill"});
        }
    }

    TEST_CASE(
        "phones freeze, hear nothing or are silent in an INVITE and before a BYE, over SAs: the callers get 487 and 504, and the gateway goes on") {
        Lab lab(plain_lab());
        Phone a(lab, {.user = 0, .arguments = {"--timeout", "60"}});
        Phone frozen(lab, {.user = 1, .arguments = {"--answer-after", "600"}});
        Phone c(lab, {.user = 2, .is_tcp = true, .arguments = {"--timeout", "60"}});
        Phone deaf(lab, {.user = 3});
        Phone e(lab, {.user = 4, .arguments = {"--timeout", "60"}});
        Phone silent(lab, {.user = 5, .arguments = {"--answer-after", "600", "--no-ring"}});
        for (Phone* phone : {&a, &frozen, &c, &deaf, &e, &silent}) phone->demand_registered();
        e.program().write_line("call " + silent.impu() + " 600");
        await(silent, "call_incoming");
        c.program().write_line("call " + deaf.impu() + " 600");
        await(c, "call_established");
        await(deaf, "call_established");
        a.program().write_line("call " + frozen.impu() + " 600");
        await(a, "call_ringing");

        ::kill(frozen.program().pid(),
               SIGSTOP);  // not killed: a large INVITE goes over TCP, whose end the kernel would tell at once (480)
        deafen(lab, deaf);
        c.program().write_line("hangup");
        a.program().write_line("cancel");
        e.program().write_line("cancel");  // not passed on to a phone that has not answered anything yet (§9.1)
        CHECK(await(a, "cancel_sent").value("status", 0) == 200);
        // All after 64*T1 of the core's side: RFC 3261 §9.1 for the INVITE, C-66 for the BYE.
        CHECK(await(a, "call_failed").value("status", 0) == 487);
        CHECK(await(c, "call_ended").value("status", 0) == 504);
        CHECK(await(e, "call_failed").value("status", 0) == 487);
        CHECK(a.events("call_failed").size() == 1);
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

    TEST_CASE(
        "phones on TLS that vanish before they answer many calls: 480 to each at once, and a small table of transactions does not fill up") {
        // 8 calls a round: their transactions towards the core stay until Timer D, 48 in all; if those towards the
        // phones stayed as well, the table would be full before the last round, and the answer 503.
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
        for (const auto& failed : caller.events("call_failed")) CHECK(failed.value("status", 0) == 480);
        CHECK(tls.in_kernel(1));
    }

    TEST_CASE(
        "RFC 3261 §16.9: a phone on TLS and one on TCP with SAs that go away after their 180: 480 for the caller at once") {
        TlsLab tls;
        Lab& lab = *tls.lab;
        Phone caller(lab, {.user = 0});
        auto over_tls = PhoneOptions{.user = 1, .arguments = tls.phone_arguments("tls-prior", "1.3")};
        over_tls.arguments.insert(over_tls.arguments.end(), {"--answer-after", "600"});
        Phone one(lab, over_tls), two(lab, {.user = 2, .is_tcp = true, .arguments = {"--answer-after", "600"}});
        for (Phone* phone : {&caller, &one, &two}) phone->demand_registered();
        for (Phone* callee : {&one, &two}) {
            const auto from = caller.mark();
            caller.program().write_line("call " + callee->impu() + " 600");
            await(caller, "call_ringing", from);
            callee->program().kill();
            CHECK(await(caller, "call_failed", from).value("status", 0) == 480);
        }
        check_goes_on(lab, 3);
    }

    TEST_CASE(
        "RFC 3261 §16.8, Timer C: a phone that rings for ever: CANCEL for it, 408 for the caller, and no transaction is left") {
        auto options = tcp_core();
        options.more_sections = "[timers]\nringing = 2\n";
        Lab lab(options);
        Phone caller(lab, {.user = 0, .is_tcp = true});
        Phone callee(lab, {.user = 1, .is_tcp = true, .arguments = {"--answer-after", "600"}});
        for (Phone* phone : {&caller, &callee}) phone->demand_registered();
        caller.program().write_line("call " + callee.impu() + " 600");
        CHECK(await(caller, "call_failed").value("status", 0) == 408);
        CHECK(await(callee, "call_ended").value("by", "") == "cancel");
        await(callee, "failure_acknowledged");
        CHECK(all_transactions_end(lab));
        check_goes_on(lab, 2);
    }

    TEST_CASE("somebody deletes an SA of a phone that rings: 480 for the caller at once, and no transaction is left") {
        Lab lab(tcp_core());
        Phone caller(lab, {.user = 0, .is_tcp = true});
        Phone callee(lab, {.user = 1, .arguments = {"--answer-after", "600"}});
        for (Phone* phone : {&caller, &callee}) phone->demand_registered();
        const int before = gateway_status(lab).at("transactions").at("server");
        caller.program().write_line("call " + callee.impu() + " 600");
        await(caller, "call_ringing");
        lab.network.gw.run(fmt::format("ip xfrm state delete src {} dst {} proto esp spi {}", Network::kUe4,
                                       Network::kAccess4, callee.first().at("spi_ps").get<std::uint32_t>()));
        CHECK(await(caller, "call_failed").value("status", 0) == 480);
        CHECK(transactions_end(lab, before));
        check_goes_on(lab, 2);
    }

    TEST_CASE("somebody deletes an SA of a caller who waits: the callee is cancelled") {
        Lab lab(tcp_core());
        Phone caller(lab, {.user = 0});
        Phone callee(lab, {.user = 1, .is_tcp = true, .arguments = {"--answer-after", "600"}});
        for (Phone* phone : {&caller, &callee}) phone->demand_registered();
        const int before = gateway_status(lab).at("transactions").at("server");
        caller.program().write_line("call " + callee.impu() + " 600");
        await(caller, "call_ringing");
        lab.network.gw.run(fmt::format("ip xfrm state delete src {} dst {} proto esp spi {}", Network::kUe4,
                                       Network::kAccess4, caller.first().at("spi_ps").get<std::uint32_t>()));
        CHECK(await(callee, "call_ended").value("by", "") == "cancel");
        await(callee, "failure_acknowledged");
        CHECK(transactions_end(lab, before + 1));  // its INVITE waits for 64*T1 (128 s): nobody can be told
        check_goes_on(lab, 2);
    }

    TEST_CASE("the access link loses everything while a phone answers: when it is back, the call stands") {
        Lab lab(plain_lab());
        Phone caller(lab, {.user = 0});
        Phone callee(lab, {.user = 1, .arguments = {"--answer-after", "600"}});
        for (Phone* phone : {&caller, &callee}) phone->demand_registered();
        caller.program().write_line("call " + callee.impu() + " 600");
        await(caller, "call_ringing");
        Capture link(lab.network.ue, Network::kUeLink);
        auto cut = Cut::access(lab);
        const auto before = link.frames().size();
        callee.program().write_line("answer");
        CHECK(eventually([&] { return link.frames().size() > before; }));  // its 200, for nobody
        CHECK(caller.events("call_established").empty());
        cut.reset();
        await(caller, "call_established");
        await(callee, "call_established");
        caller.program().write_line("hangup");
        CHECK(await(caller, "call_ended").value("ok", false));
        CHECK(await(callee, "call_ended").value("by", "") == "remote");
    }

    TEST_CASE(
        "the core link loses everything in the middle of transactions: 504 and 487 after 64*T1, and all goes on when it is back") {
        auto options = plain_lab();
        options.core_lines = "ping-interval = 0\n";
        Lab lab(options);
        Phone a(lab, {.user = 0, .arguments = {"--timeout", "60"}});
        Phone b(lab, {.user = 1, .is_tcp = true, .arguments = {"--answer-after", "600"}});
        Phone c(lab, {.user = 2, .is_tcp = true, .arguments = {"--timeout", "60"}});
        for (Phone* phone : {&a, &b, &c}) phone->demand_registered();
        a.program().write_line("call " + b.impu() + " 600");
        await(a, "call_ringing");
        auto cut = Cut::core(lab);
        c.start_message(b.impu(), "lost");
        a.program().write_line("cancel");
        CHECK(await(a, "call_failed").value("status", 0) == 487);
        CHECK(await(c, "message_sent").value("status", 0) == 504);
        cut.reset();
        check_goes_on(lab, 3);
    }

    TEST_CASE("a storm of copies of one request from the core: the phone gets it once, and the core an answer") {
        Lab lab(plain_lab());
        Phone phone(lab, {.user = 0});
        phone.demand_registered();
        const auto registers = lab.core_received(0, "REGISTER");
        REQUIRE_FALSE(registers.empty());
        const auto at = registers.back().find("\r\nPath: ");
        REQUIRE(at != std::string::npos);
        const auto path = registers.back().substr(at + 8, registers.back().find("\r\n", at + 2) - at - 8);
        RawPeer core(lab.network.core, RawPeer::Kind::udp, std::string(Network::kCore4) + ":5070",
                     std::string(Network::kGwCore4) + ":5060");
        const auto word = unique_word("copies-");
        const auto request = fmt::format(
            "MESSAGE {0} SIP/2.0\r\nVia: SIP/2.0/UDP {1}:5070;branch=z9hG4bKcopies\r\nMax-Forwards: 70\r\nRoute: {2}\r\nFrom: <sip:as@{3}>;tag=1\r\n"
            "To: <{0}>\r\nCall-ID: {4}\r\nCSeq: 1 MESSAGE\r\nContent-Type: text/plain\r\nContent-Length: {5}\r\n\r\n{4}",
            phone.impu(), Network::kCore4, path, kHomeDomain, word, word.size());
        for (int i = 0; i < 300; ++i) core.send(request);
        CHECK(core.receive_until("SIP/2.0 200 OK").find(word) != std::string::npos);
        phone.await_message(word);
        check_goes_on(lab, 1);
        CHECK(phone.events("message_received").size() == 1);
    }

    TEST_CASE(
        "a storm of copies of each request through an SA: the core gets each once, and the phone one answer to each") {
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
        CHECK(std::ranges::count_if(messages,
                                    [&](const std::string& raw) { return raw.find(word) != std::string::npos; }) == 1);
        CHECK(quiet.events("message_received").size() == 1);
        CHECK(quiet.events("call_incoming").size() == 1);
        CHECK(storm.events("message_sent").size() == 1);
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
