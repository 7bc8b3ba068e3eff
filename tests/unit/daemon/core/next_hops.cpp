// Which element of the core comes first, which ones are out, and what [core] may say.
#include <doctest/doctest.h>

#include <fmt/format.h>

#include <map>

#include "daemon/core/core_link.h"
#include "daemon/core/health.h"
#include "daemon/core/next_hops.h"
#include "tests/support/still_clock.h"

using namespace gmgate;
using namespace gmgate::daemon;
using gmgate::test::StillClock;

namespace {

Target target(std::string_view endpoint, std::uint32_t priority = 0, std::uint32_t weight = 1,
              CoreTransport transport = CoreTransport::udp) {
    Target t;
    t.endpoint = *Endpoint::parse(endpoint);
    t.priority = priority;
    t.weight = weight;
    t.transport = transport;
    return t;
}

std::string order(const std::vector<Target>& targets) {
    std::string all;
    for (const Target& t : targets) all += (all.empty() ? "" : " ") + t.endpoint.to_string();
    return all;
}

const IsDown kAllUp = [](const Target&) { return false; };
const Draw kLeast = [](std::uint64_t) { return std::uint64_t{0}; };

std::string config_text(std::string_view core) {
    return "[core]\nlisten = \"10.2.0.1:5060\"\nvisited-network-id = \"v.example\"\n" + std::string(core) +
           "\n[[sip-interface]]\nrealm-id = \"a\"\n[[sip-interface.sip-ports]]\naddress = \"10.1.0.1\"\n";
}

std::string hop_mistake(std::string_view core) {
    const auto config = parse_config(config_text(core), "t.toml");
    return config ? "" : config.error().text;
}

}  // namespace

TEST_CASE("next hops: lower priority first, whatever the weight") {
    const auto ordered =
        order_targets({target("10.0.0.2:5060", 2, 100), target("10.0.0.1:5060", 1, 1), target("10.0.0.3:5060", 3, 9)},
                      kAllUp, kLeast);
    CHECK(order(ordered) == "10.0.0.1:5060 10.0.0.2:5060 10.0.0.3:5060");
}

TEST_CASE("RFC 2782: within a priority the weights decide how often one comes first; weight 0 almost never") {
    std::map<std::string, int> first;
    std::uint64_t state = 1;
    const Draw draw = [&](std::uint64_t most) {
        return (state = state * 6364136223846793005u + 1442695040888963407u) / 65536 % (most + 1);
    };
    for (int i = 0; i < 4000; ++i)
        ++first[order_targets(
                    {target("10.0.0.1:5060", 0, 30), target("10.0.0.2:5060", 0, 10), target("10.0.0.3:5060", 0, 0)},
                    kAllUp, draw)[0]
                    .endpoint.to_string()];
    CHECK(first["10.0.0.1:5060"] > 2800);
    CHECK(first["10.0.0.1:5060"] < 3200);
    CHECK(first["10.0.0.2:5060"] > 750);
    CHECK(first["10.0.0.3:5060"] < 200);
}

TEST_CASE("next hops: one that is down comes last, also when all are, and none is named twice") {
    const IsDown down = [](const Target& t) { return t.endpoint.to_string() == "10.0.0.1:5060"; };
    CHECK(order(order_targets({target("10.0.0.1:5060", 0), target("10.0.0.2:5060", 1)}, down, kLeast)) ==
          "10.0.0.2:5060 10.0.0.1:5060");
    CHECK(order(order_targets({target("10.0.0.1:5060")}, down, kLeast)) == "10.0.0.1:5060");
    CHECK(order_targets(
              {target("10.0.0.1:5060"), target("10.0.0.1:5060"), target("10.0.0.1:5060", 0, 1, CoreTransport::tcp)},
              kAllUp, kLeast)
              .size() == 2);
}

TEST_CASE("health: silence takes an element out only when it has answered nothing since the request was sent") {
    StillClock clock;
    Health health(clock, seconds{60}, 2);
    const Endpoint a = *Endpoint::parse("10.0.0.1:5060"), b = *Endpoint::parse("10.0.0.2:5060"),
                   c = *Endpoint::parse("10.0.0.3:5060");
    const TimePoint sent = clock.at;
    clock.at += seconds{1};
    CHECK_FALSE(health.answered(a));  // to another request
    clock.at += seconds{31};
    CHECK_FALSE(health.silent(a, sent));
    CHECK_FALSE(health.is_down(a));
    CHECK(health.silent(a, sent + seconds{2}));
    CHECK(health.is_down(a));
    CHECK(health.silent(b, sent));  // never heard of
    CHECK(health.answered(b));
    clock.at += seconds{61};
    CHECK_FALSE(health.answered(c));  // a's answer is forgotten for it
    CHECK_FALSE(health.silent(c, clock.at));
}

TEST_CASE("health: a failure takes an element out until it answers or the rest time is over; the table has a limit") {
    StillClock clock;
    Health health(clock, seconds{60}, 2);
    const Endpoint a = *Endpoint::parse("10.0.0.1:5060"), b = *Endpoint::parse("10.0.0.2:5060"),
                   c = *Endpoint::parse("10.0.0.3:5060");
    CHECK(health.failed(a));
    CHECK_FALSE(health.failed(a));  // told once
    CHECK(health.is_down(a));
    CHECK(health.answered(a));
    CHECK_FALSE(health.answered(a));
    CHECK_FALSE(health.is_down(a));
    CHECK(health.failed(a));
    clock.at += seconds{61};
    CHECK_FALSE(health.is_down(a));
    CHECK(health.failed(b));
    CHECK(health.failed(c));  // a's entry has run out and makes room
    CHECK_FALSE(health.failed(a));
    CHECK(health.size() == 2);
    CHECK_FALSE(health.is_down(a));  // not remembered: it is simply tried
}

TEST_CASE("RFC 3261 §18.1.1: beyond 1300 octets a request goes over TCP") {
    CHECK(transport_for(1300, CoreTransport::udp) == CoreTransport::udp);
    CHECK(transport_for(1301, CoreTransport::udp) == CoreTransport::tcp);
    CHECK(transport_for(100, CoreTransport::tcp) == CoreTransport::tcp);
}

TEST_CASE("[core] next-hop: a text for one, tables for several") {
    auto config = parse_config(config_text("next-hop = \"10.2.0.2\""), "t.toml");
    REQUIRE_MESSAGE(config.has_value(), config.error().text);
    CHECK(config->core.next_hops.at(0).to_string() == "10.2.0.2:5060");
    config = parse_config(config_text("next-hop = \"icscf.home.example\""), "t.toml");
    REQUIRE_MESSAGE(config.has_value(), config.error().text);
    CHECK(config->core.next_hops.at(0).to_string() == "icscf.home.example");
    CHECK(config->core.next_hops.at(0).endpoint.port.value == 0);
    config = parse_config(
        config_text(
            "name-servers = [\"10.2.0.53\", \"10.2.0.54:5353\"]\n"
            "[[core.next-hops]]\nhost = \"10.2.0.2:5062\"\npriority = 1\n"
            "[[core.next-hops]]\nhost = \"backup.example:5070\"\npriority = 2\nweight = 7\ntransport = \"tcp\"\n"
            "[[core.emergency-next-hops]]\nhost = \"10.2.0.9\"\n"),
        "t.toml");
    REQUIRE_MESSAGE(config.has_value(), config.error().text);
    REQUIRE(config->core.next_hops.size() == 2);
    CHECK(config->core.next_hops[1].host == "backup.example");
    CHECK(config->core.next_hops[1].endpoint.port.value == 5070);
    CHECK(config->core.next_hops[1].weight == 7);
    CHECK(config->core.next_hops[1].transport == CoreTransport::tcp);
    CHECK(config->core.emergency_next_hops.at(0).to_string() == "10.2.0.9:5060");
    CHECK(config->core.name_servers.at(0).to_string() == "10.2.0.53:53");
}

TEST_CASE("[core] peers: addresses and ranges, one or a list") {
    auto config =
        parse_config(config_text("next-hop = \"10.2.0.2\"\npeers = [\"10.3.0.0/24\", \"fd03::7\"]"), "t.toml");
    REQUIRE_MESSAGE(config.has_value(), config.error().text);
    REQUIRE(config->core.peers.size() == 2);
    CHECK(config->core.peers[0].to_string() == "10.3.0.0/24");
    CHECK(config->core.peers[1].to_string() == "fd03::7/128");
    config = parse_config(config_text("next-hop = \"10.2.0.2\"\npeers = \"10.3.0.9\""), "t.toml");
    REQUIRE_MESSAGE(config.has_value(), config.error().text);
    CHECK(config->core.peers.size() == 1);
    for (const auto* wrong : {"scscf.example", "10.3.0.9/24", "10.3.0.9:5060"}) {
        const auto bad =
            parse_config(config_text(fmt::format("next-hop = \"10.2.0.2\"\npeers = \"{}\"", wrong)), "t.toml");
        REQUIRE_FALSE(bad.has_value());
        CHECK(bad.error().text.find(fmt::format("[core]: peers: \"{}\" is neither", wrong)) != std::string::npos);
    }
}

TEST_CASE("[core] listen: several, of both families; each next hop has one of its family") {
    const auto with = [](std::string_view listen, std::string_view hops) {
        auto text = config_text(hops);
        const std::string_view one = "\"10.2.0.1:5060\"";
        return parse_config(text.replace(text.find(one), one.size(), listen), "t.toml");
    };
    const auto config = with("[\"10.2.0.1:5060\", \"[fd02::1]:5060\", \"10.2.0.1:5080\"]",
                             "next-hop = \"[fd02::2]:5060\"\n[[core.next-hops]]\nhost = \"10.2.0.2\"\n");
    REQUIRE(config);
    CHECK(config->core.listen_for(Family::v4)->to_string() == "10.2.0.1:5060");
    CHECK(config->core.listen_for(Family::v6)->to_string() == "[fd02::1]:5060");
    CHECK(config->core.listens_at(*Endpoint::parse("10.2.0.1:5080")));
    const auto mistake_of = [&](std::string_view listen) {
        const auto wrong = with(listen, "next-hop = \"10.2.0.2:5060\"");
        return wrong ? std::string() : wrong.error().text;
    };
    CHECK(mistake_of("[]").find("listen: the gateway's own \"ADDRESS:PORT\"") != std::string::npos);
    CHECK(mistake_of("[\"10.2.0.1:5060\", \"10.2.0.1:5060\"]").find("is used by [core] listen and by [core] listen") !=
          std::string::npos);
    CHECK(mistake_of("[\"10.2.0.1:5060\", \"10.2.0.1\"]").find("\"10.2.0.1\" is not \"ADDRESS:PORT\"") !=
          std::string::npos);
    CHECK(mistake_of("[\"10.2.0.1:5060\", 5]").find("listen: must be a list of texts") != std::string::npos);
    CHECK(mistake_of("\"[fd02::1]:5060\"").find("listen has no address of the family of") != std::string::npos);
}

TEST_CASE("[core] next-hop: every mistake is told with its place") {
    CHECK(hop_mistake("").find("next-hop: the \"ADDRESS:PORT\" or name") != std::string::npos);
    CHECK(hop_mistake("next-hop = \"10.2.0.2:x\"").find("t.toml:4:12: [core]: next-hop: \"10.2.0.2:x\" is neither") !=
          std::string::npos);
    CHECK(hop_mistake("next-hop = \"user@host\"").find("is neither") != std::string::npos);
    CHECK(hop_mistake("next-hop = \"[fd02::2]:5060\"").find("listen has no address of the family of") !=
          std::string::npos);
    CHECK(hop_mistake("next-hops = 5").find("must be written [[core.next-hops]]") != std::string::npos);
    CHECK(hop_mistake("[[core.next-hops]]\nhost = \"10.2.0.2\"\nweight = 0")
              .find("weight: must be a whole number from 1 to 65535") != std::string::npos);
    CHECK(hop_mistake("[[core.next-hops]]\nhost = \"10.2.0.2\"\nwieght = 1").find("unknown key \"wieght\"") !=
          std::string::npos);
    CHECK(hop_mistake("next-hop = \"10.2.0.2\"\nname-servers = \"dns.example\"")
              .find("name-servers: \"dns.example\" is no") != std::string::npos);
    CHECK(
        hop_mistake("next-hop = \"10.2.0.2\"\ntransport = \"sctp\"").find("is not one of \"udp\", \"tcp\", \"tls\"") !=
        std::string::npos);
}
