// The core side on the real kernel: a core that dies, another that takes over, one that ends a registration; a storm,
// and memory afterwards.
#include <doctest/doctest.h>

#include <csignal>
#include <fstream>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "tests/integration/scene.h"

using namespace gmgate::test;

namespace {

/// Resident memory of a process in kB.
long resident_kb(pid_t pid) {
    std::ifstream status("/proc/" + std::to_string(pid) + "/status");
    std::string word;
    long value = 0;
    while (status >> word)
        if (word == "VmRSS:") status >> value;
    return value;
}

/// Somebody on the access link whom nobody knows, at the unprotected port.
struct Stranger {
    explicit Stranger(Lab& lab)
        : peer(lab.network.ue, RawPeer::Kind::udp, std::string(Network::kUe4) + ":5070",
               std::string(Network::kAccess4) + ":5060") {}

    void start(std::string_view method, std::string_view uri, int number) {
        peer.send(fmt::format(
            "{0} {1} SIP/2.0\r\nVia: SIP/2.0/UDP {2}:5070;branch=z9hG4bKx{3}\r\nMax-Forwards: 70\r\nFrom: <sip:a@b>;tag=a{3}\r\nTo: <{1}>\r\n"
            "Call-ID: full-{3}\r\nCSeq: 1 {0}\r\nContact: <sip:{2}:5070>\r\nSecurity-Client: {4}\r\nContent-Length: 0\r\n\r\n",
            method, uri, Network::kUe4, number, SecurityClient{}.text()));
    }
    /// The final answer.
    std::string ask(std::string_view method, std::string_view uri, int number) {
        start(method, uri, number);
        for (;;) {
            auto answer = peer.receive().value_or("");
            if (!answer.starts_with("SIP/2.0 1")) return answer;
        }
    }

    RawPeer peer;
};

/// Two equal E-CSCFs in the core, stateless, and an anonymous caller in clear.
struct EmergencyScene {
    explicit EmergencyScene(const std::string& limits = {}) : lab(options(limits)) {}
    static LabOptions options(const std::string& limits) {
        auto options = plain_lab();
        options.core_lines = "ping-interval = 0\n";
        for (const int port : {5081, 5082})
            options.core_lines +=
                fmt::format("[[core.emergency-next-hops]]\nhost = \"{}:{}\"\n", Network::kCore4, port);
        options.more_sections = limits;
        return options;
    }
    static std::string ecscf(int which) { return fmt::format("{}:{}", Network::kCore4, 5081 + which); }

    /// The next request at either E-CSCF that is no copy, and at which; {-1, ""} when none comes.
    std::pair<int, std::string> next() {
        std::string text;
        int at = -1;
        (void)eventually([&] {
            for (int which : {0, 1})
                if (auto got = hops[which].receive(std::chrono::milliseconds(1))) {
                    if (!seen.insert(field(*got, "Via: ")).second) continue;
                    text = *got;
                    at = which;
                    return true;
                }
            return false;
        });
        return {at, text};
    }
    static std::string field(const std::string& raw, const std::string& begin) {
        const auto at = raw.find(begin);
        return at == std::string::npos ? std::string() : raw.substr(at, raw.find("\r\n", at) - at + 2);
    }
    void answer(int which, const std::string& request) {
        std::string vias;
        for (auto at = request.find("Via: "); at != std::string::npos;
             at = request.find("\r\nVia: ", at) == std::string::npos ? std::string::npos
                                                                     : request.find("\r\nVia: ", at) + 2)
            vias += field(request.substr(at), "Via: ");
        const std::string to = field(request, "To: ");
        std::string routes = field(request, "Record-Route: ");
        if (!routes.empty()) routes = fmt::format("Record-Route: <sip:{};lr>\r\n{}", ecscf(which), routes);
        hops[which].send("SIP/2.0 200 OK\r\n" + vias + field(request, "From: ") +
                         (to.find(";tag=") == std::string::npos ? to.substr(0, to.size() - 2) + ";tag=psap\r\n" : to) +
                         field(request, "Call-ID: ") + field(request, "CSeq: ") + routes +
                         fmt::format("Contact: <sip:psap@{}>\r\nContent-Length: 0\r\n\r\n", ecscf(which)));
    }
    std::string request(std::string_view method, const std::string& uri, const std::string& from, int number,
                        bool in_dialog) const {
        return fmt::format(
            "{0} {1} SIP/2.0\r\nVia: SIP/2.0/UDP {2};branch=z9hG4bK{0}{3}\r\nMax-Forwards: 70\r\nFrom: <sip:anonymous@anonymous.invalid>;tag=f{3}\r\n"
            "To: <urn:service:sos>{4}\r\nCall-ID: sos-{3}\r\nCSeq: {5} {6}\r\nContact: <sip:{2}>\r\nContent-Length: 0\r\n\r\n",
            method, uri, from, number, in_dialog ? ";tag=psap" : "", method == "BYE" ? 2 : 1, method);
    }

    Lab lab;
    RawPeer hops[2] = {{lab.network.core, RawPeer::Kind::udp, ecscf(0), std::string(Network::kGwCore4) + ":5060"},
                       {lab.network.core, RawPeer::Kind::udp, ecscf(1), std::string(Network::kGwCore4) + ":5060"}};
    std::string from4 = std::string(Network::kUe4) + ":5070", from6 = "[" + std::string(Network::kUe6) + "]:5070";
    RawPeer caller4{lab.network.ue, RawPeer::Kind::udp, from4, std::string(Network::kAccess4) + ":5060"},
        caller6{lab.network.ue, RawPeer::Kind::udp, from6, "[" + std::string(Network::kAccess6) + "]:5060"};
    std::set<std::string> seen{};
};

std::string final_answer(RawPeer& peer) {
    for (;;) {
        auto answer = peer.receive().value_or("");
        if (!answer.starts_with("SIP/2.0 1")) return answer;
    }
}

}  // namespace

TEST_SUITE("core-side") {
    TEST_CASE(
        "C-83, C-84: two equal E-CSCFs, 200 anonymous calls over IPv4 and IPv6: every ACK and BYE reaches the one that has the call") {
        EmergencyScene scene;
        int calls_of[2] = {0, 0};
        for (int i = 0; i < 200; ++i) {
            INFO("call ", i);
            RawPeer& caller = i % 2 == 0 ? scene.caller4 : scene.caller6;
            const std::string& from = i % 2 == 0 ? scene.from4 : scene.from6;
            caller.send(scene.request("INVITE", "urn:service:sos", from, i, false));
            const auto [at, invite] = scene.next();
            REQUIRE(at >= 0);
            REQUIRE(invite.starts_with("INVITE urn:service:sos"));
            ++calls_of[at];
            scene.answer(at, invite);
            REQUIRE(final_answer(caller).starts_with("SIP/2.0 200"));
            const std::string psap = "sip:psap@" + EmergencyScene::ecscf(at);
            caller.send(scene.request("ACK", psap, from, i, true));
            const auto [ack_at, ack] = scene.next();
            CHECK(ack_at == at);
            CHECK(ack.starts_with("ACK " + psap));
            CHECK(ack.find("Route: <sip:" + EmergencyScene::ecscf(at) + ";lr>\r\n") != std::string::npos);
            if (i < 4) {  // the open door: other methods, another target, another address
                for (const char* method : {"MESSAGE", "SUBSCRIBE", "REFER"}) {
                    caller.send(scene.request(method, psap, from, i, true));
                    CHECK(final_answer(caller).starts_with("SIP/2.0 403"));
                }
                caller.send(scene.request("UPDATE", "sip:somebody@home.example", from, i, true));
                CHECK(final_answer(caller).starts_with("SIP/2.0 403"));
                RawPeer& other = i % 2 == 0 ? scene.caller6 : scene.caller4;
                other.send(scene.request("BYE", psap, i % 2 == 0 ? scene.from6 : scene.from4, i, true));
                CHECK(final_answer(other).starts_with("SIP/2.0 403"));
            }
            caller.send(scene.request("BYE", psap, from, i, true));
            const auto [bye_at, bye] = scene.next();
            CHECK(bye_at == at);
            CHECK(bye.starts_with("BYE " + psap));
            scene.answer(bye_at < 0 ? at : bye_at, bye);
            CHECK(final_answer(caller).starts_with("SIP/2.0 200"));
        }
        CHECK(calls_of[0] > 40);
        CHECK(calls_of[1] > 40);
    }

    TEST_CASE(
        "unanswered anonymous calls are bounded per source and in all: whoever comes later is served, and the oldest is told") {
        EmergencyScene scene("[limits]\nemergency-calls = 12\nemergency-calls-per-source = 8\n");
        for (int i = 0; i < 40; ++i) {  // nobody answers; more than the table holds
            scene.caller4.send(scene.request("INVITE", "urn:service:sos", scene.from4, i, false));
            REQUIRE(scene.next().first >= 0);
        }
        scene.caller6.send(scene.request("INVITE", "urn:service:sos", scene.from6, 100, false));
        const auto [at, invite] = scene.next();
        REQUIRE(at >= 0);
        CHECK(invite.find("Call-ID: sos-100") != std::string::npos);
        scene.answer(at, invite);
        CHECK(final_answer(scene.caller6).starts_with("SIP/2.0 200"));
        scene.caller6.send(scene.request("ACK", "sip:psap@" + EmergencyScene::ecscf(at), scene.from6, 100, true));
        CHECK(scene.next().second.starts_with("ACK "));
    }

    TEST_CASE(
        "RFC 3263 §4.3: the core dies; phones register at the next one, and one that was registered is taken over by it") {
        auto options = plain_lab();
        options.core_lines = "ping-interval = 1\nnext-hop-answer = 1\n";
        options.next_hops = "[[core.next-hops]]\nhost = \"" + std::string(Network::kCore4) +
                            ":5060\"\npriority = 1\n[[core.next-hops]]\nhost = \"" + std::string(Network::kCore4) +
                            ":5062\"\npriority = 2\n";
        Lab lab(options);
        Program second({.command = {options.programs.gmcore, "--listen", std::string(Network::kCore4) + ":5062",
                                    "--users", "8", "--print-ready", "--steer"},
                        .name = "gmcore 2",
                        .network = &lab.network.core});
        second.wait_for_text("gmcore ready");
        Phone phone(lab, {});
        phone.demand_registered();
        CHECK(lab.core_registers().size() == 2);

        lab.core().kill();
        const auto down = lab.gateway().wait_for_text("next-hop-down");
        CHECK(down.text.find(":5060") != std::string::npos);
        Phone other(lab, {.user = 1});
        other.demand_registered();  // at the second core
        Phone third(lab, {.user = 2, .is_v6 = true, .is_tcp = true});
        third.demand_registered();
        const auto word = unique_word("after-");
        CHECK(other.message(third.impu(), word) == 200);
        third.await_message(word);
        phone.reregister(false);  // its Service-Route named the dead core; the second one knows it not, and challenges
        CHECK(phone.message(third.impu(), word + "again") == 200);
    }

    TEST_CASE("C-51, C-52: the network de-registers a phone: its SAs live for 64*T1 more, and end") {
        auto options = plain_lab();
        options.core_lines = "reg-event = true\n";
        options.more_sections = "[timers]\nold-set = 3\n";
        Lab lab(options);
        Phone phone(lab, {});
        phone.demand_registered();
        lab.gateway().wait_for_text("reg-event-subscribed");
        CHECK(eventually([&] { return lab.core_received(0, "SUBSCRIBE").size() == 1; }));
        CHECK(count_sas(lab.network.gw) == 4);
        ::kill(lab.core().pid(), SIGUSR1);
        lab.gateway().wait_for_text("registration-shortened");
        CHECK(eventually([&] { return count_sas(lab.network.gw) == 0; }));
        CHECK(lab.gateway_log().find("reg-event-bad-notify") == std::string::npos);
        Phone again(lab, {.user = 1});
        again.demand_registered();
    }

    TEST_CASE(
        "C-51, C-52: an S-CSCF that ends each subscription, news of a former address, and a restart cost no phone its registration") {
        auto options = plain_lab();
        options.core_lines = "reg-event = true\n";
        options.core_arguments = {"--end-subscriptions", "reason=deactivated"};
        {
            Lab lab(options);
            Phone phone(lab, {});
            phone.demand_registered();
            lab.gateway().wait_for_text("reg-event-ended");
            CHECK(eventually([&] { return lab.core_received(0, "SUBSCRIBE").size() == 2; }));  // the second at once
            Phone peer(lab, {.user = 1, .is_v6 = true, .is_tcp = true});
            peer.demand_registered();
            CHECK(eventually([&] { return lab.core_received(0, "SUBSCRIBE").size() == 4; }));
            const auto word = unique_word("still-there-");
            CHECK(phone.message(peer.impu(), word) == 200);
            peer.await_message(word);
            CHECK(lab.core_received(0, "SUBSCRIBE").size() == 4);
        }
        options.core_arguments = {};
        Lab lab(options);
        const auto tells = [&](std::size_t answered) {  // 200 or 481 to the NOTIFY that SIGUSR2 brings
            const auto mark = lab.core_mark();
            ::kill(lab.core().pid(), SIGUSR2);
            const auto wanted = "SIP/2.0 " + std::to_string(answered);
            CHECK(eventually([&] {
                return std::ranges::any_of(lab.core_received(mark), [&](const std::string& text) {
                    return text.starts_with(wanted) && text.find(" NOTIFY\r\n") != std::string::npos;
                });
            }));
        };
        Phone phone(lab, {});
        phone.demand_registered();
        lab.gateway().wait_for_text("reg-event-subscribed");
        tells(200);
        CHECK(count_sas(lab.network.gw) == 4);
        CHECK(lab.gateway_log().find("registration-shortened") == std::string::npos);
        lab.kill_gateway();
        lab.start_gateway();
        lab.gateway().wait_for_text("reg-event-subscribed");
        CHECK(lab.core_received(0, "SUBSCRIBE").size() == 2);
        tells(481);  // to the one of before; the new one gets 200 and changes nothing
        CHECK(phone.message(phone.impu(), unique_word("to-itself-")) == 200);
        CHECK(count_sas(lab.network.gw) == 4);
        ::kill(lab.core().pid(), SIGUSR1);
        lab.gateway().wait_for_text("registration-shortened");
    }

    TEST_CASE(
        "C-80, C-83: the table is full of REGISTERs that wait for a core which does not answer: an emergency call is taken all the same") {
        auto options = plain_lab();
        options.interface_lines = "anonymous-emergency = true\n";
        options.core_lines = "ping-interval = 0\n";
        options.more_sections = "[limits]\ntransactions = 40\nemergency-reserve = 50\n";
        Lab lab(options);
        Stranger stranger(lab);
        ::kill(lab.core().pid(), SIGSTOP);
        for (int i = 0; i < 21; ++i) stranger.start("REGISTER", "sip:x", i);
        stranger.peer.receive_until("SIP/2.0 503");  // 20 wait for the core
        stranger.start("INVITE", "urn:service:sos", 100);
        stranger.peer.receive_until("SIP/2.0 100");
        const auto mark = lab.core_mark();
        ::kill(lab.core().pid(), SIGCONT);
        CHECK(eventually([&] { return lab.core_received(mark, "INVITE").size() >= 1; }));
        stranger.peer.receive_until("SIP/2.0 404");  // gmcore knows no emergency centre
    }

    TEST_CASE(
        "G-9, H-4: a stranger's refused requests leave nothing: a small table does not fill, copies get the same answer, phones are served") {
        auto options = plain_lab();
        options.core_transport = "tcp";  // no Timer K towards the core
        options.core_lines = "ping-interval = 0\n";
        options.more_sections = "[limits]\ntransactions = 16\nemergency-reserve = 0\n";
        Lab lab(options);
        Stranger stranger(lab);
        for (int i = 0; i < 100; ++i) {
            const std::string_view method = i % 2 == 0 ? "OPTIONS" : "INVITE";
            const auto answer = stranger.ask(method, "sip:x@y", i);
            CHECK(answer.starts_with("SIP/2.0 403"));
            if (i % 10 == 0) CHECK(stranger.ask(method, "sip:x@y", i) == answer);
        }
        CHECK(gateway_status(lab).at("transactions").at("server") == 0);
        // REGISTERs of nobody whom the core knows: passed on, declined, and in a crowd forgotten.
        const auto mark = lab.core_mark();
        for (int i = 0; i < 40; ++i) CHECK(status_of(stranger.ask("REGISTER", "sip:x", 1000 + i)) / 100 == 4);
        CHECK(eventually([&] { return lab.core_received(mark, "REGISTER").size() == 40; }));
        CHECK(gateway_status(lab).at("transactions").at("server").get<int>() <= 8);
        Phone one(lab, {}), two(lab, {.user = 1, .is_tcp = true});
        one.demand_registered();
        two.demand_registered();
        const auto word = unique_word("served-");
        CHECK(two.message(one.impu(), word) == 200);
        one.await_message(word);
    }

    TEST_CASE(
        "a core of both families: a next hop is gone, the other is reached from the address of its own family, and reaches the phone there") {
        for (const bool is_v6 : {false, true}) {
            for (const char* transport : {"udp", "tcp"}) {
                INFO("living core over ", is_v6 ? "IPv6, " : "IPv4, ", transport);
                const std::string four = std::string(Network::kCore4) + ":5060",
                                  six = fmt::format("[{}]:5060", Network::kCore6);
                const std::string& living = is_v6 ? six : four;
                auto options = plain_lab();
                options.core_side = fmt::format("[\"{}:5060\", \"[{}]:5060\"]", Network::kGwCore4, Network::kGwCore6);
                options.core_transport = transport;
                options.core_listen = living;
                // Over UDP only silence tells that nobody is there, and a REGISTER waits for it: there it stands
                // second.
                const int rank = options.core_transport == "tcp" ? 0 : 2;
                options.next_hops =
                    fmt::format("[[core.next-hops]]\nhost = \"{}\"\npriority = {}\n", is_v6 ? four : six, rank) +
                    fmt::format("[[core.next-hops]]\nhost = \"{}\"\npriority = 1\n", living);
                Lab lab(options);
                Phone alice(lab, {}), bob(lab, {.user = 1, .is_v6 = true});
                alice.demand_registered();
                bob.demand_registered();
                const std::string ours =
                    is_v6 ? fmt::format("[{}]:5060", Network::kGwCore6) : std::string(Network::kGwCore4) + ":5060";
                const auto registers = lab.core_received(0, "REGISTER");
                REQUIRE_FALSE(registers.empty());
                for (const std::string& text : registers) {
                    CHECK(text.find("@" + ours) != std::string::npos);  // Path
                    CHECK(text.find(" " + ours + ";branch=") != std::string::npos);
                }
                const auto there = unique_word("there-"), back = unique_word("back-");
                CHECK(alice.message(bob.impu(), there) == 200);
                bob.await_message(there);
                CHECK(bob.message(alice.impu(), back) == 200);
                alice.await_message(back);
            }
        }
    }

    TEST_CASE(
        "a slow core under a flood of strangers' REGISTERs: registered phones send, call and refresh, none of it fails") {
        auto options = plain_lab();
        options.core_arguments = {"--delay", "2000"};
        options.core_lines = "ping-interval = 0\n";
        options.more_sections = "[limits]\ntransactions = 200\n";
        options.log_level = "info";
        Lab lab(options);
        Phone one(lab, {}), two(lab, {.user = 1, .is_v6 = true, .is_tcp = true});
        one.demand_registered();
        two.demand_registered();
        Stranger stranger(lab);
        int number = 0;
        for (int round = 0; round < 12; ++round) {
            for (int i = 0; i < 60; ++i) stranger.start("REGISTER", "sip:x", ++number);
            const auto word = unique_word("in-the-flood-");
            CHECK(two.message(one.impu(), word) == 200);
            one.await_message(word);
        }
        CHECK(one.call(two.impu()).value("event", "") == "call_ended");
        one.reregister(false);
        two.reregister(false);
        stranger.peer.receive_until("SIP/2.0 503");
        CHECK(gateway_status(lab).at("transactions").at("server").get<int>() < 200);
    }

    TEST_CASE("a core that is gone: every request of a phone gets 504, and memory comes back to where it was") {
        auto options = plain_lab();
        options.core_lines = "ping-interval = 0\n";
        options.core_transport = "tcp";  // a refused connection tells at once what silence tells after 32 s
        Lab lab(options);
        Phone phone(lab, {});
        phone.demand_registered();
        const auto round = [&] {
            constexpr int kRequests = 200;
            const auto from = phone.mark();
            for (int i = 0; i < kRequests; ++i) phone.start_message(impu_of_user(1), "nobody-hears-this");
            int seen = 0;
            auto at = from;
            while (seen < kRequests) {
                at = phone.program()
                         .wait_for_line(
                             [](const std::string& line) { return line.find("\"status\":504") != std::string::npos; },
                             "504", at)
                         .index +
                     1;
                ++seen;
            }
        };
        lab.core().kill();
        round();  // buffers have grown to their size
        const long before = resident_kb(lab.gateway().pid());
        round();
        const long after = resident_kb(lab.gateway().pid());
        INFO("kB before ", before, ", after ", after);
        CHECK(before > 0);
        CHECK(after - before < 4096);
    }
}
