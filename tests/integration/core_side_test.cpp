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

/// Somebody on the access link whom nobody knows, at the unprotected port.
struct Stranger {
    explicit Stranger(Lab& lab) : peer(lab.network.ue, RawPeer::Kind::udp, std::string(Network::kUe4) + ":5070", std::string(Network::kAccess4) + ":5060") {}

    void start(std::string_view method, std::string_view uri, int number) {
        peer.send(fmt::format("{0} {1} SIP/2.0\r\nVia: SIP/2.0/UDP {2}:5070;branch=z9hG4bKx{3}\r\nMax-Forwards: 70\r\nFrom: <sip:a@b>;tag=a{3}\r\nTo: <{1}>\r\n"
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

    TEST_CASE("C-80, C-83: the table is full of REGISTERs that wait for a core which does not answer: an emergency call is taken all the same") {
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

    TEST_CASE("G-9, H-4: a stranger's refused requests leave nothing: a small table does not fill, copies get the same answer, phones are served") {
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
