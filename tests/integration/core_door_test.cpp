// The core's port: what comes there is the core's word, so nobody of the access side may speak at it, whatever he
// knows. An element of the core that is no next hop may when it is named.
#include <doctest/doctest.h>

#include <fstream>
#include <memory>
#include <vector>

#include <fmt/format.h>

#include "tests/integration/operator.h"

using namespace gmgate::test;

namespace {

struct Stranger {
    std::string name, own;  ///< own address and port, as in Via
    std::unique_ptr<RawPeer> peer;
    bool is_tcp;
};

std::string both_sides() { return fmt::format("[\"{}:5060\", \"[{}]:5060\"]", Network::kGwCore4, Network::kGwCore6); }

/// Whoever is on the access link, at the core's port: both families, both transports.
std::vector<Stranger> strangers(const Lab& lab, int first_port) {
    std::vector<Stranger> all;
    for (const bool is_v6 : {false, true})
        for (const bool is_tcp : {false, true}) {
            const Access access{.is_v6 = is_v6, .is_tcp = is_tcp};
            const auto own = access.ue_port(first_port++);
            const auto gateway =
                is_v6 ? fmt::format("[{}]:5060", Network::kGwCore6) : fmt::format("{}:5060", Network::kGwCore4);
            auto peer = std::make_unique<RawPeer>(lab.network.ue, is_tcp ? RawPeer::Kind::tcp : RawPeer::Kind::udp, own,
                                                  gateway);
            all.push_back(
                {fmt::format("{} {}", is_v6 ? "IPv6" : "IPv4", is_tcp ? "TCP" : "UDP"), own, std::move(peer), is_tcp});
        }
    return all;
}

std::string request_of(const std::string& method, const std::string& uri, const Stranger& from, const std::string& word,
                       const std::string& more = {}) {
    return fmt::format(
        "{0} {1} SIP/2.0\r\nVia: SIP/2.0/{2} {3};branch=z9hG4bK{4}\r\nMax-Forwards: 70\r\n{5}From: <sip:king@{6}>;tag=1\r\n"
        "To: <{1}>\r\nCall-ID: {4}\r\nCSeq: 1 {0}\r\nP-Asserted-Identity: <sip:king@{6}>\r\nContent-Type: text/plain\r\n"
        "Content-Length: {7}\r\n\r\n{4}",
        method, uri, from.is_tcp ? "TCP" : "UDP", from.own, word, more, kHomeDomain, word.size());
}

std::string path_of_newest(const Lab& lab) {
    const auto registers = lab.core_received(0, "REGISTER");
    const auto at = registers.back().find("\r\nPath: ");
    REQUIRE(at != std::string::npos);
    return registers.back().substr(at + 8, registers.back().find("\r\n", at + 2) - at - 8);
}

int refused(const Lab& lab) { return gateway_status(lab)["counters"]["core_stranger"].get<int>(); }

}  // namespace

TEST_SUITE("doors") {
    TEST_CASE(
        "the core's port: a stranger's OPTIONS and forged MESSAGE get nothing, over UDP and TCP, IPv4 and IPv6; named in peers he is served") {
        auto options = plain_lab();
        options.core_side = both_sides();
        Lab lab(options);
        lab.network.ue.ip_batch(std::string("route add 10.2.0.0/16 via ") + Network::kAccess4 +
                                "\nroute add fd02::/64 via " + Network::kAccess6 + "\n");
        Phone phone(lab, {}), other(lab, {.user = 1, .is_v6 = true, .is_tcp = true});
        phone.demand_registered();
        other.demand_registered();
        const auto path = path_of_newest(lab);
        auto enemies = strangers(lab, 47000);
        int seen = 0;
        for (auto& enemy : enemies) {
            INFO(enemy.name);
            if (!enemy.is_tcp) {
                enemy.peer->send("\r\n\r\n");
                enemy.peer->send(
                    request_of("OPTIONS", "sip:" + std::string(Network::kGwCore4), enemy, unique_word("options-")));
                enemy.peer->send(
                    request_of("MESSAGE", other.impu(), enemy, unique_word("forged-"), "Route: " + path + "\r\n"));
                seen += 3;
            } else {
                ++seen;  // closed before he says a word
            }
            CHECK(eventually([&] { return refused(lab) >= seen; }));
            CHECK_FALSE(enemy.peer->receive(std::chrono::milliseconds{1}).has_value());
        }
        CHECK(refused(lab) == seen);
        CHECK(lab.gateway().wait_for_text("core-stranger").text.find("[core] peers") != std::string::npos);
        // The core itself, from another port: the same request is served.
        const Stranger core{
            "core", std::string(Network::kCore4) + ":5070",
            std::make_unique<RawPeer>(lab.network.core, RawPeer::Kind::udp, std::string(Network::kCore4) + ":5070",
                                      std::string(Network::kGwCore4) + ":5060"),
            false};
        const auto word = unique_word("true-");
        core.peer->send(request_of("MESSAGE", other.impu(), core, word, "Route: " + path + "\r\n"));
        CHECK(core.peer->receive_until("SIP/2.0 200").find(word) != std::string::npos);
        other.await_message(word);
        CHECK(phone.events("message_received").empty());
        CHECK(other.events("message_received").size() == 1);

        std::string text;
        {
            std::ifstream file(lab.config_path());
            text.assign(std::istreambuf_iterator<char>(file), {});
        }
        const std::string head = "[core]\n";
        text.insert(text.find(head) + head.size(), fmt::format("peers = [\"{}/32\", \"fd01::/64\"]\n", Network::kUe4));
        std::ofstream(lab.config_path()) << text;
        (void)ask_gmctl(lab, {"reload"});
        for (auto& friendly : strangers(lab, 47100)) {
            INFO(friendly.name);
            if (friendly.is_tcp) REQUIRE(friendly.peer->connects(kPatience));
            friendly.peer->send(
                request_of("OPTIONS", "sip:" + std::string(Network::kGwCore4), friendly, unique_word("options-")));
            CHECK(friendly.peer->receive_until("\r\n\r\n").starts_with("SIP/2.0 200"));
        }
        CHECK(refused(lab) == seen);
    }
}
