// What an operator sees of the elements of the core, and changes there.
#include <doctest/doctest.h>

#include <fmt/format.h>

#include "tests/integration/operator.h"

using namespace gmgate::test;

TEST_SUITE("operate") {
    TEST_CASE(
        "gmctl core: which next hop is down, since when and why; a disabled one gets nothing new, the last one cannot be disabled") {
        const auto serving = std::string(Network::kCore4) + ":5060", other = std::string(Network::kCore4) + ":5090",
                   dead = fmt::format("[{}]:5099", Network::kCore6);
        auto options = plain_lab();
        options.core_lines = "ping-interval = 1\n";
        options.top_lines = "metrics-listen = \"127.0.0.1:9464\"\n";
        options.core_transport = "tcp";  // a refused connection tells at once what silence tells after seconds
        options.core_side = fmt::format("[\"{}:5060\", \"[{}]:5060\"]", Network::kGwCore4, Network::kGwCore6);
        options.next_hops = fmt::format(
            "[[core.next-hops]]\nhost = \"{}\"\n"
            "[[core.next-hops]]\nhost = \"{}\"\ntransport = \"udp\"\npriority = 1\n"
            "[[core.next-hops]]\nhost = \"{}\"\npriority = 2\n",
            serving, other, dead);
        Lab lab(options);
        RawPeer second(lab.network.core, RawPeer::Kind::udp, other, std::string(Network::kGwCore4) + ":5060");
        Phone alice(lab, {}), bob(lab, {.user = 1, .is_v6 = true});
        alice.demand_registered();
        bob.demand_registered();
        const auto hop = [&](std::size_t which) { return ask_gmctl(lab, {"core"})["hops"].at(which); };
        CHECK(eventually([&] { return hop(2)["state"] == "down" && hop(0).contains("round_trip_ms"); }));
        CHECK(hop(0)["state"] == "up");
        CHECK(hop(0)["answers"].get<int>() >= 4);
        CHECK(hop(2)["address"] == dead);
        CHECK(hop(2)["reason"].get<std::string>().find("refused") != std::string::npos);
        CHECK_FALSE(hop(2)["since"].get<std::string>().empty());

        // The one that serves is disabled: newcomers go to the next one, and what a Route sends there still does.
        CHECK(ask_gmctl(lab, {"core", "disable", serving})["disabled"] == true);
        CHECK(hop(0)["disabled"] == true);
        RawRegister newcomer;
        newcomer.user = 2;
        newcomer.security_client = SecurityClient{}.text();
        RawPeer phone(lab.network.ue, RawPeer::Kind::udp, newcomer.access.ue_port(newcomer.port),
                      newcomer.access.gateway_port(5060));
        phone.send(newcomer.text());
        CHECK(second.receive_until("REGISTER sip:").find(newcomer.call_id) != std::string::npos);
        const auto word = unique_word("by-its-route-");
        CHECK(alice.message(bob.impu(), word) == 200);
        bob.await_message(word);
        // Nothing may be left without any: dead or alive, the last one stays.
        CHECK(ask_gmctl(lab, {"core", "disable", dead})["disabled"] == true);
        CHECK_THROWS(ask_gmctl(lab, {"core", "disable", other}));
        CHECK_THROWS(ask_gmctl(lab, {"core", "disable", "192.0.2.1:5060"}));
        CHECK_THROWS(ask_gmctl(lab, {"core", "enable", other}));
        CHECK(monitoring_page(lab, "/metrics").find("gmgate_next_hops_disabled 2\n") != std::string::npos);
        CHECK(ask_gmctl(lab, {"core", "enable", dead})["disabled"] == false);
        CHECK(screen(lab, {"core", "enable", serving}).find("in use again") != std::string::npos);

        lab.core().kill();
        CHECK(eventually([&] { return hop(0)["state"] == "down"; }));
        const auto gone = hop(0);
        INFO(gone.dump(1));
        CHECK_FALSE(gone["reason"].get<std::string>().empty());
        CHECK(gone["for"].get<int>() < 20);
        const auto page = monitoring_page(lab, "/metrics");
        CHECK(page.find("gmgate_next_hop_up{next_hop=\"" + serving + "\"} 0\n") != std::string::npos);
        CHECK(page.find("gmgate_core_response_seconds_count{next_hop=\"" + serving + "\"}") != std::string::npos);
        const auto shown = screen(lab, {"core"});
        INFO(shown);
        CHECK(shown.find(serving) != std::string::npos);
        CHECK(shown.find("down") != std::string::npos);
    }
}
