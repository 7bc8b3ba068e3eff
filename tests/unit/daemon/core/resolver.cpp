// The resolver against a name server of the test on a real socket: NAPTR, SRV, addresses, TTL, failures and limits.
#include <map>

#include <fmt/format.h>

#include "daemon/core/resolver.h"
#include "tests/support/still_clock.h"
#include "tests/unit/sip/transport/net_support.h"

using namespace gmgate;
using namespace gmgate::daemon;
using gmgate::sip::test::Loop;
using gmgate::sip::test::Peer;
using gmgate::test::StillClock;

namespace {

constexpr int kTypeA = 1, kTypeAaaa = 28, kSrv = 33, kNaptr = 35;

void put16(std::string& out, unsigned value) {
    out += static_cast<char>(value >> 8 & 0xff);
    out += static_cast<char>(value & 0xff);
}
void put_text(std::string& out, std::string_view text) {
    out += static_cast<char>(text.size());
    out += text;
}
std::string name_octets(std::string_view name) {
    std::string out;
    while (!name.empty()) {
        const std::size_t dot = std::min(name.find('.'), name.size());
        put_text(out, name.substr(0, dot));
        name.remove_prefix(std::min(dot + 1, name.size()));
    }
    out += '\0';
    return out;
}
std::string a_record(std::string_view address) {
    const auto parsed = *Address::parse(address);
    return {reinterpret_cast<const char*>(parsed.bytes().data()), parsed.size()};
}
std::string srv_record(unsigned priority, unsigned weight, unsigned port, std::string_view host) {
    std::string out;
    put16(out, priority);
    put16(out, weight);
    put16(out, port);
    return out + name_octets(host);
}
std::string naptr_record(unsigned order, unsigned preference, std::string_view service, std::string_view replacement) {
    std::string out;
    put16(out, order);
    put16(out, preference);
    put_text(out, "s");
    put_text(out, service);
    put_text(out, "");
    return out + name_octets(replacement);
}

/// Answers what it knows; NXDOMAIN otherwise. Driven by the test's loop.
struct NameServer {
    struct Record {
        unsigned ttl;
        std::string octets;
    };
    Loop& loop;
    Peer socket = Peer::udp(loop, Family::v4);
    std::map<std::pair<std::string, int>, std::vector<Record>> records{};
    int questions = 0;
    bool is_silent = false;

    void serve() {
        while (true) {
            std::string bytes(512, '\0');
            sockaddr_storage from{};
            socklen_t length = sizeof from;
            const ssize_t count = ::recvfrom(socket.fd(), bytes.data(), bytes.size(), MSG_DONTWAIT,
                                             reinterpret_cast<sockaddr*>(&from), &length);
            if (count < 12) return;
            bytes.resize(static_cast<std::size_t>(count));
            ++questions;
            if (is_silent) continue;
            std::size_t at = 12;
            std::string name;
            while (bytes[at] != 0) {
                const auto size = static_cast<std::size_t>(bytes[at]);
                name += (name.empty() ? "" : ".") + bytes.substr(at + 1, size);
                at += size + 1;
            }
            const int type = static_cast<unsigned char>(bytes[at + 1]) << 8 | static_cast<unsigned char>(bytes[at + 2]);
            const auto known = records.find({name, type});
            const std::size_t answers = known == records.end() ? 0 : known->second.size();
            std::string reply = bytes.substr(0, 2);
            put16(reply, answers > 0 ? 0x8180 : 0x8183);
            put16(reply, 1);
            put16(reply, static_cast<unsigned>(answers));
            put16(reply, 0);
            put16(reply, 0);
            reply += bytes.substr(12, at + 5 - 12);
            if (known != records.end())
                for (const Record& record : known->second) {
                    put16(reply, 0xc00c);
                    put16(reply, static_cast<unsigned>(type));
                    put16(reply, 1);
                    put16(reply, record.ttl >> 16);
                    put16(reply, record.ttl & 0xffff);
                    put16(reply, static_cast<unsigned>(record.octets.size()));
                    reply += record.octets;
                }
            ::sendto(socket.fd(), reply.data(), reply.size(), 0, reinterpret_cast<const sockaddr*>(&from), length);
        }
    }
};

struct World {
    Loop loop;
    NameServer server{loop};
    StillClock clock;
    std::unique_ptr<Resolver> resolver;

    explicit World(ResolverLimits limits = {}, std::optional<Family> family = Family::v4,
                   Resolver::Admits admits = {}) {
        resolver =
            std::make_unique<Resolver>(loop.io.get_executor(), clock, std::vector<Endpoint>{server.socket.endpoint()},
                                       family, limits, std::move(admits));
    }
    Result<std::vector<Target>> resolve(std::string host, std::uint16_t port = 0,
                                        std::optional<CoreTransport> transport = {}) {
        std::optional<Result<std::vector<Target>>> result;
        NextHop hop;
        hop.host = std::move(host);
        hop.endpoint.port = Port{port};
        hop.transport = transport;
        hop.priority = 1;
        loop.start(resolver->resolve(hop, CoreTransport::udp),
                   [&](Result<std::vector<Target>> found) { result.emplace(std::move(found)); });
        REQUIRE(loop.until(
            [&] {
                server.serve();
                return result.has_value();
            },
            std::chrono::seconds{30}));
        return *result;
    }
};

std::string shown(const Result<std::vector<Target>>& targets) {
    if (!targets) return "error: " + targets.error().text;
    std::string all;
    for (const Target& t : *targets)
        all += fmt::format("{}{}/{} {}.{} w{}", all.empty() ? "" : ", ", t.endpoint.to_string(),
                           t.transport == CoreTransport::tcp ? "tcp" : "udp", t.priority >> 16, t.priority & 0xffff,
                           t.weight);
    return all;
}

}  // namespace

TEST_CASE("RFC 3263 §4.1: NAPTR chooses the transport, SRV the ports and the order, A the addresses") {
    World world;
    auto& records = world.server.records;
    records[{"home.example", kNaptr}] = {{300, naptr_record(20, 10, "SIP+D2U", "_sip._udp.home.example")},
                                         {300, naptr_record(10, 10, "SIP+D2T", "_sip._tcp.home.example")},
                                         {300, naptr_record(5, 10, "SIPS+D2X", "_x.home.example")}};
    records[{"_sip._tcp.home.example", kSrv}] = {{300, srv_record(1, 60, 5070, "one.home.example")},
                                                 {300, srv_record(2, 0, 5071, "two.home.example")}};
    records[{"one.home.example", kTypeA}] = {{300, a_record("10.9.0.1")}};
    records[{"two.home.example", kTypeA}] = {{300, a_record("10.9.0.2")}};
    CHECK(shown(world.resolve("home.example")) == "10.9.0.1:5070/tcp 1.1 w60, 10.9.0.2:5071/tcp 1.2 w0");
}

TEST_CASE("RFC 3263 §4.2: without NAPTR by SRV, without SRV by address and port 5060; a port asks for addresses only") {
    World world;
    auto& records = world.server.records;
    records[{"_sip._udp.srv.example", kSrv}] = {{300, srv_record(7, 3, 5080, "one.home.example")}};
    records[{"one.home.example", kTypeA}] = {{300, a_record("10.9.0.1")}};
    records[{"plain.example", kTypeA}] = {{300, a_record("10.9.0.3")}};
    CHECK(shown(world.resolve("srv.example")) == "10.9.0.1:5080/udp 1.7 w3");
    CHECK(shown(world.resolve("plain.example")) == "10.9.0.3:5060/udp 1.0 w1");
    const int before = world.server.questions;
    CHECK(shown(world.resolve("plain.example", 5099, CoreTransport::tcp)) == "10.9.0.3:5099/tcp 1.0 w1");
    CHECK(world.server.questions == before + 1);
}

TEST_CASE("AAAA for a core side of IPv6") {
    World world({}, Family::v6);
    world.server.records[{"six.example", kTypeAaaa}] = {{300, a_record("fd09::1")}};
    world.server.records[{"six.example", kTypeA}] = {{300, a_record("10.9.0.1")}};
    CHECK(shown(world.resolve("six.example", 5060)) == "[fd09::1]:5060/udp 1.0 w1");
}

TEST_CASE("A and AAAA for a core side of both families; one without the other is no failure") {
    World world({}, std::nullopt);
    world.server.records[{"icscf.home.example", kTypeA}] = {{300, a_record("10.2.0.2")}};
    world.server.records[{"icscf.home.example", kTypeAaaa}] = {{300, a_record("fd02::2")}};
    const auto both = shown(world.resolve("icscf.home.example", 5070));
    CHECK(both.find("10.2.0.2:5070/udp") != std::string::npos);
    CHECK(both.find("[fd02::2]:5070/udp") != std::string::npos);
    world.server.records[{"six.home.example", kTypeAaaa}] = {{300, a_record("fd02::6")}};
    CHECK(shown(world.resolve("six.home.example", 5070)).find("[fd02::6]:5070/udp") != std::string::npos);
}

TEST_CASE("an answer serves for its TTL, not longer; the least TTL of the records counts") {
    World world;
    auto& records = world.server.records;
    records[{"_sip._udp.srv.example", kSrv}] = {{20, srv_record(1, 1, 5060, "one.home.example")}};
    records[{"one.home.example", kTypeA}] = {{300, a_record("10.9.0.1")}};
    (void)world.resolve("srv.example");
    const int asked = world.server.questions;
    world.clock.at += seconds{19};
    (void)world.resolve("srv.example");
    CHECK(world.server.questions == asked);
    world.clock.at += seconds{2};
    records[{"one.home.example", kTypeA}] = {{300, a_record("10.9.0.7")}};
    CHECK(shown(world.resolve("srv.example")) == "10.9.0.7:5060/udp 1.1 w1");
}

TEST_CASE("a failure is remembered for a while, and an old answer serves meanwhile (RFC 8767)") {
    ResolverLimits limits;
    limits.failure = seconds{10};
    World world(limits);
    CHECK(shown(world.resolve("plain.example", 5060)).starts_with("error: plain.example: "));
    const int asked = world.server.questions;
    CHECK_FALSE(world.resolve("plain.example", 5060).has_value());
    CHECK(world.server.questions == asked);  // not asked again at once
    world.clock.at += seconds{11};
    world.server.records[{"plain.example", kTypeA}] = {{5, a_record("10.9.0.3")}};
    CHECK(world.resolve("plain.example", 5060).has_value());
    world.clock.at += seconds{11};
    world.server.records.clear();
    CHECK(shown(world.resolve("plain.example", 5060)) == "10.9.0.3:5060/udp 1.0 w1");
    CHECK(world.resolver->counters().served_stale == 1);
    world.clock.at += limits.stale + seconds{60};
    CHECK_FALSE(world.resolve("plain.example", 5060).has_value());
}

TEST_CASE("an answer that may not be is left out; when nothing else is left, the old one serves") {
    World world({}, Family::v4, [](const Endpoint& answer) { return answer.address != *Address::parse("127.0.0.1"); });
    auto& records = world.server.records;
    records[{"a.example", kTypeA}] = {{10, a_record("127.0.0.1")}, {10, a_record("10.2.0.2")}};
    CHECK(shown(world.resolve("a.example", 5060)) == "10.2.0.2:5060/udp 1.0 w1");
    records[{"a.example", kTypeA}] = {{10, a_record("127.0.0.1")}};
    world.clock.advance(seconds{11});
    CHECK(shown(world.resolve("a.example", 5060)) == "10.2.0.2:5060/udp 1.0 w1");
    CHECK(world.resolver->counters().served_stale == 1);
    records[{"b.example", kTypeA}] = {{10, a_record("127.0.0.1")}};
    CHECK(shown(world.resolve("b.example", 5060)) ==
          "error: b.example: 127.0.0.1:5060 is this gateway itself or nobody's address");
}

TEST_CASE("the cache and the look-ups at once have limits; look-ups of one name share an answer") {
    ResolverLimits limits;
    limits.names = 2;
    limits.queries = 1;
    World world(limits);
    for (const char* name : {"a.example", "b.example", "c.example"}) {
        world.server.records[{name, kTypeA}] = {{300, a_record("10.9.0.1")}};
        CHECK(world.resolve(name, 5060).has_value());
    }
    CHECK(world.resolver->cached() == 2);
    world.server.is_silent = true;
    int done = 0, refused = 0;
    const auto start = [&](std::string name) {
        NextHop hop;
        hop.host = std::move(name);
        hop.endpoint.port = Port{5060};
        world.loop.start(world.resolver->resolve(hop, CoreTransport::udp), [&](Result<std::vector<Target>> found) {
            ++done;
            refused += !found && found.error().text.find("too many names") != std::string::npos;
        });
    };
    start("d.example");
    start("d.example");
    start("e.example");
    CHECK(world.loop.until([&] { return done == 1; }));
    CHECK(refused == 1);
    CHECK(world.resolver->counters().refused_limit == 1);
    world.resolver.reset();  // ends the two that wait
    CHECK(world.loop.until([&] { return done == 3; }));
}
