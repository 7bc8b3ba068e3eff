// The core side on the real kernel: a core that dies, another that takes over, one that ends a registration; a storm, and memory afterwards.
#include <doctest/doctest.h>

#include <csignal>
#include <fstream>

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

}  // namespace

TEST_SUITE("core-side") {
    TEST_CASE("RFC 3263 §4.3: the core dies; phones register at the next one, and one that was registered is taken over by it") {
        auto options = plain_lab();
        options.core_lines = "ping-interval = 1\nnext-hop-answer = 1\n";
        options.next_hops = "[[core.next-hops]]\nhost = \"" + std::string(Network::kCore4) + ":5060\"\npriority = 1\n[[core.next-hops]]\nhost = \"" + std::string(Network::kCore4) + ":5062\"\npriority = 2\n";
        Lab lab(options);
        Program second({.command = {options.programs.gmcore, "--listen", std::string(Network::kCore4) + ":5062", "--users", "8", "--print-ready", "--steer"}, .name = "gmcore 2", .network = &lab.network.core});
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

    TEST_CASE("C-80, C-83: the table of transactions is full of a stranger's requests: an emergency call still reaches the core") {
        auto options = plain_lab();
        options.interface_lines = "anonymous-emergency = true\n";
        options.more_sections = "[limits]\ntransactions = 40\nemergency-reserve = 50\n";
        Lab lab(options);
        RawPeer stranger(lab.network.ue, RawPeer::Kind::udp, std::string(Network::kUe4) + ":5070", std::string(Network::kAccess4) + ":5060");
        const auto ask = [&](std::string_view method, std::string_view uri, int number) {
            stranger.send(fmt::format("{0} {1} SIP/2.0\r\nVia: SIP/2.0/UDP {2}:5070;branch=z9hG4bKx{3}\r\nMax-Forwards: 70\r\nFrom: <sip:a@b>;tag=a{3}\r\nTo: <{1}>\r\n"
                                      "Call-ID: full-{3}\r\nCSeq: 1 {0}\r\nContact: <sip:{2}:5070>\r\nContent-Length: 0\r\n\r\n", method, uri, Network::kUe4, number));
        };
        int refused = 0;
        for (int i = 0; i < 30 && refused == 0; ++i) {  // each is answered 403, and stays until Timer J
            ask("OPTIONS", "sip:x@y", i);
            refused += stranger.receive().value_or("").starts_with("SIP/2.0 503");
        }
        CHECK(refused == 1);
        const auto mark = lab.core_mark();
        ask("INVITE", "urn:service:sos", 100);
        CHECK(eventually([&] { return lab.core_received(mark, "INVITE").size() >= 1; }));
        stranger.receive_until("SIP/2.0 404");  // gmcore knows no emergency centre
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
                at = phone.program().wait_for_line([](const std::string& line) { return line.find("\"status\":504") != std::string::npos; }, "504", at).index + 1;
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
