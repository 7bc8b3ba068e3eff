// Transports on real loopback sockets.
#include <stdexcept>

#include <sys/socket.h>
#include <unistd.h>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>

#include "base/clock.h"

#include "tests/unit/sip/transport/net_support.h"

using namespace gmgate;
using namespace gmgate::sip;
using namespace gmgate::sip::test;

namespace {

struct Received {
    std::string bytes;
    Flow flow;
};

struct Gateway {
    explicit Gateway(Family family = Family::v4, TransportLimits limits = {})
        : transports(loop.io.get_executor(), limits), local(free_endpoint(family)) {
        transports.on_message([this](OwnedMessage m, const Flow& flow) {
            received.push_back({std::string(m->bytes()), flow});
        });
        transports.on_closed([this](const Flow& flow) { closed.push_back(flow); });
        const auto listening = transports.listen(local, {});
        REQUIRE_MESSAGE(listening.has_value(), (listening ? "" : listening.error().text));
    }
    ~Gateway() {
        transports.shutdown();
        CHECK(loop.until([&] { return transports.connection_count() == 0; }));
    }
    bool has_received(std::size_t count) {
        return loop.until([&] { return received.size() >= count; });
    }
    Loop loop;
    Transports transports;
    Endpoint local;
    std::vector<Received> received;
    std::vector<Flow> closed;
};

/// A stream in memory that the test feeds and that accepts nothing.
class StuckStream final : public ByteStream {
public:
    StuckStream(asio::io_context& io, bool* closed) : event_(io, TimePoint::max()), closed_(closed) {}
    Task<Result<std::size_t>> read(std::string&) override { return wait<std::size_t>(); }
    Task<Result<void>> write(std::string_view) override { return wait<void>(); }
    void close(bool) override {
        *closed_ = true;
        event_.cancel();
    }

private:
    template <class T>
    Task<Result<T>> wait() {
        if (!*closed_) {
            try {
                co_await event_.async_wait(asio::use_awaitable);
            } catch (const std::exception&) {}
        }
        co_return failure(Reaction::broken, "closed");
    }
    asio::steady_timer event_;
    bool* closed_;
};

constexpr Family kFamilies[] = {Family::v4, Family::v6};

}  // namespace

TEST_CASE("UDP: a datagram arrives with both ends named, and the answer goes back to where it came from") {
    for (const Family family : kFamilies) {
        Gateway g(family);
        Peer peer = Peer::udp(g.loop, family);
        const std::string request = request_text({});
        peer.send(request, g.local);
        REQUIRE(g.has_received(1));
        CHECK(g.received[0].bytes == request);
        CHECK(g.received[0].flow == Flow{Transport::udp, g.local, peer.endpoint(), {}, {}});
        CHECK(g.transports.send(g.received[0].flow, response_text(request, 200)).has_value());
        CHECK(peer.receive() == response_text(request, 200));
    }
}

TEST_CASE("UDP: a burst is received and sent in batches, in order") {
    Gateway g;
    Peer peer = Peer::udp(g.loop, Family::v4);
    for (int i = 0; i < 100; ++i) peer.send(request_text({.branch = "z9hG4bK" + std::to_string(i)}), g.local);
    REQUIRE(g.has_received(100));
    CHECK(g.transports.counters().receive_calls <= 8);
    for (const auto& r : g.received) CHECK(g.transports.send(r.flow, r.bytes).has_value());
    for (int i = 0; i < 100; ++i) CHECK(peer.receive() == g.received[static_cast<std::size_t>(i)].bytes);
    CHECK(g.transports.counters().datagrams_out == 100);
    CHECK(g.transports.counters().send_calls == 2);
}

TEST_CASE("UDP: sending without a socket, to the wrong family, or more than a datagram holds is an error") {
    Gateway g;
    Flow flow{Transport::udp, g.local, g.local, {}, {}};
    CHECK(g.transports.send(flow, std::string(70000, 'x')).error().reaction == Reaction::refused);
    flow.remote.address = loopback(Family::v6);
    CHECK(g.transports.send(flow, "x").error().reaction == Reaction::internal);
    flow.local.port = Port(1);
    CHECK(g.transports.send(flow, "x").error().reaction == Reaction::broken);
}

TEST_CASE("UDP: the packet mark is reported with CAP_NET_ADMIN") {
    for (const Family family : kFamilies) {
        Gateway g(family);
        const Endpoint marked = free_endpoint(family);
        const auto listening = g.transports.listen(marked, {.udp = true, .tcp = true, .report_mark = true});
        REQUIRE(listening.has_value());
        Peer peer = Peer::udp(g.loop, family);
        const std::uint32_t mark = 0x1101;
        REQUIRE(::setsockopt(peer.fd(), SOL_SOCKET, SO_MARK, &mark, sizeof mark) == 0);
        peer.send(request_text({}), marked);
        REQUIRE(g.has_received(1));
        CHECK(g.received[0].flow.mark == Mark(0x1101));
        CHECK(g.received[0].flow.local == marked);
    }
}

TEST_CASE("listening twice at one endpoint, on a wildcard or without a port is refused, and nothing stays half open") {
    Gateway g;
    CHECK(!g.transports.listen(g.local, {}));
    CHECK(!g.transports.listen({Address::any(Family::v4), Port(5062)}, {}));
    CHECK(!g.transports.listen({loopback(Family::v4), Port(0)}, {}));
    Transports other(g.loop.io.get_executor(), {});
    const auto taken = other.listen(g.local, {});
    REQUIRE(!taken.has_value());
    CHECK(taken.error().code == EADDRINUSE);
    CHECK(taken.error().text.find(g.local.to_string()) != std::string::npos);
    CHECK(other.listen(g.local, {.udp = false, .tcp = true}).error().code == EADDRINUSE);

    const Endpoint half = free_endpoint(Family::v4);
    auto blocker = open_listening_socket(half);
    REQUIRE(blocker.has_value());
    CHECK(other.listen(half, {}).error().code == EADDRINUSE);
    blocker->close();
    CHECK(other.listen(half, {}).has_value());
}

TEST_CASE("TCP: messages are cut out of the stream however it is segmented, and answers return on the connection") {
    for (const Family family : kFamilies) {
        Gateway g(family);
        Peer peer = Peer::tcp(g.loop, g.local);
        const std::string one = request_text({.transport = "TCP", .body = "hello"}),
                          two = request_text({.branch = "z9hG4bKtwo", .transport = "TCP"});
        for (const char c : one.substr(0, 40)) peer.send({&c, 1});
        peer.send(one.substr(40) + two + "\r\n\r\n" + one.substr(0, 3));
        peer.send(one.substr(3));
        REQUIRE(g.has_received(3));
        CHECK(g.received[0].bytes == one);
        CHECK(g.received[1].bytes == two);
        CHECK(g.received[2].bytes == one);
        const Flow flow = g.received[0].flow;
        CHECK(flow.local == g.local);
        CHECK(flow.remote == peer.endpoint());
        CHECK(g.transports.is_open(flow.connection));
        CHECK(g.transports.find_connection(g.local, peer.endpoint()) == flow);
        CHECK(g.transports.send(flow, response_text(one, 200)).has_value());
        std::string answer;
        const std::string expected = "\r\n" + response_text(one, 200);
        while (answer.size() < expected.size()) answer += peer.receive();
        CHECK(answer == expected);
        CHECK(g.transports.counters().keep_alives == 1);
    }
}

TEST_CASE("TCP: the end of a connection is told once, whoever ended it, and its id is never used again") {
    Gateway g;
    Peer one = Peer::tcp(g.loop, g.local);
    one.send(request_text({.transport = "TCP"}));
    REQUIRE(g.has_received(1));
    const Flow flow = g.received[0].flow;
    one.close();
    REQUIRE(g.loop.until([&] { return g.closed.size() == 1; }));
    CHECK(g.closed[0] == flow);
    CHECK(!g.transports.is_open(flow.connection));
    CHECK(g.transports.connection_count() == 0);
    CHECK(g.transports.send(flow, "x").error().reaction == Reaction::broken);

    Peer two = Peer::tcp(g.loop, g.local);
    two.send(request_text({.transport = "TCP"}));
    REQUIRE(g.has_received(2));
    CHECK(g.received[1].flow.connection != flow.connection);
    g.transports.close(g.received[1].flow.connection, true);
    CHECK(!g.transports.is_open(g.received[1].flow.connection));
    REQUIRE(g.loop.until([&] { return g.closed.size() == 2; }));
    CHECK(two.receive().empty());
    g.loop.drain(5ms);
    CHECK(g.closed.size() == 2);
    CHECK(g.transports.counters().connections_closed == 2);
}

TEST_CASE("TCP: what was queued before an orderly close still arrives, and nothing is read any more") {
    Gateway g;
    Peer peer = Peer::tcp(g.loop, g.local);
    peer.send(request_text({.transport = "TCP"}));
    REQUIRE(g.has_received(1));
    const std::string large = response_text(request_text({.transport = "TCP"}), 200, std::string(200000, 'x'));
    CHECK(g.transports.send(g.received[0].flow, large).has_value());
    g.transports.close(g.received[0].flow.connection, false);
    peer.send(request_text({.transport = "TCP"}));
    CHECK(!g.transports.is_open(g.received[0].flow.connection));
    CHECK((peer.receive_all() == large));
    CHECK(g.closed.empty());
    peer.close();
    CHECK(g.loop.until([&] { return g.closed.size() == 1; }));
    CHECK(g.received.size() == 1);
}

TEST_CASE("TCP: a peer that does not read is cut off when its queue is full, and counted") {
    Gateway g(Family::v4, {.write_queue_octets = 100000});
    bool ended = false;
    const Flow flow = g.transports.adopt(std::make_unique<StuckStream>(g.loop.io, &ended),
                                         {Transport::tls, g.local, g.local, {}, {}});
    CHECK(flow.connection != ConnectionId());
    Result<void> sent;
    int count = 0;
    const std::string start = "SIP/2.0 200 OK\r\nContent-Length: 961\r\n\r\n", message = start + std::string(961, 'x');
    while ((sent = g.transports.send(flow, message))) {
        ++count;
        g.loop.io.poll();
    }
    CHECK(count == 100);
    CHECK(sent.error().reaction == Reaction::exhausted);
    CHECK(g.transports.counters().write_queue_overflows == 1);
    CHECK(g.loop.until([&] { return g.closed.size() == 1; }));
    CHECK(ended);
}

TEST_CASE("TCP: connections beyond the limits are refused and counted") {
    Gateway g(Family::v4, {.connections = 3, .connections_per_address = 2});
    Peer one = Peer::tcp(g.loop, g.local), two = Peer::tcp(g.loop, g.local);
    REQUIRE(g.loop.until([&] { return g.transports.connection_count() == 2; }));
    CHECK(!g.transports.make_room_for(loopback(Family::v4)));
    Peer three = Peer::tcp(g.loop, g.local);
    CHECK(three.receive().empty());
    CHECK(g.transports.counters().connections_refused_limit == 1);

    const Address other = *Address::parse("192.0.2.1");
    CHECK(g.transports.make_room_for(other));
    bool ended = false, refused = false;
    const Flow far{Transport::tls, g.local, {other, Port(9)}, {}, {}};
    CHECK(g.transports.adopt(std::make_unique<StuckStream>(g.loop.io, &ended), far).connection != ConnectionId());
    CHECK(g.transports.adopt(std::make_unique<StuckStream>(g.loop.io, &refused), far).connection == ConnectionId());
    CHECK(refused);
    const auto full = g.loop.get(g.transports.connect_tcp({loopback(Family::v4), Port(0)}, g.local, 1s));
    CHECK(full.error().reaction == Reaction::exhausted);
    one.close();
    REQUIRE(g.loop.until([&] { return g.closed.size() == 1; }));
    Peer four = Peer::tcp(g.loop, g.local);
    CHECK(g.loop.until([&] { return g.transports.counters().connections_accepted == 4; }));
}

TEST_CASE("TCP: a connection that nobody keeps is closed for being idle, keep-alives or not; a kept one stays") {
    Gateway g(Family::v4, {.unbound_idle = 1s});
    Peer idle = Peer::tcp(g.loop, g.local), kept = Peer::tcp(g.loop, g.local);
    kept.send(request_text({.transport = "TCP"}));
    REQUIRE(g.has_received(1));
    g.transports.keep_open(g.received[0].flow.connection, true);
    idle.send("\r\n\r\n");
    CHECK(idle.receive() == "\r\n");
    CHECK(idle.receive().empty());
    CHECK(g.transports.is_open(g.received[0].flow.connection));
    idle.close();
    CHECK(g.loop.until([&] { return g.transports.connection_count() == 1; }));
    g.transports.keep_open(g.received[0].flow.connection, false);
    CHECK(kept.receive().empty());
}

TEST_CASE("B-15: several connections are opened from one fixed port, which may even have a listener") {
    for (const Family family : kFamilies) {
        Gateway g(family);
        const auto one = open_listening_socket({loopback(family), Port(0)}),
                   two = open_listening_socket({loopback(family), Port(0)});
        const Endpoint remote_one = local_endpoint_of(one->get()), remote_two = local_endpoint_of(two->get());
        const auto first = g.loop.get(g.transports.connect_tcp(g.local, remote_one, 1s));
        const auto second = g.loop.get(g.transports.connect_tcp(g.local, remote_two, 1s));
        REQUIRE_MESSAGE(first.has_value(), (first ? "" : first.error().text));
        REQUIRE(second.has_value());
        CHECK(first->local == g.local);
        CHECK(second->local == g.local);
        CHECK(first->connection != second->connection);
        Peer peer = Peer::accept(g.loop, *one);
        CHECK(g.transports.send(*first, "hello").error().reaction ==
              Reaction::internal);  // no message: nobody could tell where it ends
        const std::string message = request_text({.transport = "TCP"});
        CHECK(g.transports.send(*first, message).has_value());
        CHECK(peer.receive() == message);
        peer.send(request_text({.transport = "TCP"}));
        REQUIRE(g.has_received(1));
        CHECK(g.received[0].flow == *first);
        CHECK(g.loop.get(g.transports.connect_tcp(g.local, remote_one, 1s)) == *first);
    }
}

TEST_CASE("connecting: attempts between the same two endpoints are one, and a reset frees the port pair at once") {
    Gateway g;
    const auto listener = open_listening_socket({loopback(Family::v4), Port(0)});
    const Endpoint remote = local_endpoint_of(listener->get());
    std::vector<Flow> flows;
    for (int i = 0; i < 3; ++i)
        g.loop.start(g.transports.connect_tcp(g.local, remote, 1s), [&](const Result<Flow>& flow) {
            REQUIRE(flow.has_value());
            flows.push_back(*flow);
        });
    REQUIRE(g.loop.until([&] { return flows.size() == 3; }));
    CHECK(flows[0] == flows[1]);
    CHECK(flows[0] == flows[2]);
    CHECK(g.transports.counters().connections_opened == 1);
    for (int i = 0; i < 3; ++i) {
        Peer peer = Peer::accept(g.loop, *listener);
        g.transports.close(flows.back().connection, true);
        CHECK(peer.receive().empty());
        const auto again = g.loop.get(g.transports.connect_tcp(g.local, remote, 1s));
        REQUIRE_MESSAGE(again.has_value(), (again ? "" : again.error().text));
        flows.push_back(*again);
    }
}

TEST_CASE("connecting: a refusal and an occupied port pair are broken, with a text that names both ends") {
    Gateway g;
    const Endpoint nobody = free_endpoint(Family::v4);
    const auto refused = g.loop.get(g.transports.connect_tcp(g.local, nobody, 1s));
    REQUIRE(!refused.has_value());
    CHECK(refused.error().reaction == Reaction::broken);
    CHECK(refused.error().code == ECONNREFUSED);
    CHECK(refused.error().text.find(nobody.to_string()) != std::string::npos);

    const auto listener = open_listening_socket({loopback(Family::v4), Port(0)});
    const Endpoint remote = local_endpoint_of(listener->get());
    const auto first = g.loop.get(g.transports.connect_tcp(g.local, remote, 1s));
    REQUIRE(first.has_value());
    Transports other(g.loop.io.get_executor(), {});
    const auto occupied = g.loop.get(other.connect_tcp(g.local, remote, 1s));
    REQUIRE(!occupied.has_value());
    CHECK(occupied.error().reaction == Reaction::broken);
    CHECK(occupied.error().code == EADDRNOTAVAIL);
    CHECK(occupied.error().text.find("the port pair is in use or in TIME_WAIT") != std::string::npos);
    const auto mixed = g.loop.get(other.connect_tcp(g.local, {loopback(Family::v6), Port(9)}, 1s));
    CHECK(mixed.error().reaction == Reaction::internal);
}

TEST_CASE("connecting: a peer that does not answer is given up after the time limit") {
    Gateway g;
    // A listener whose accept queue is full drops SYNs.
    FileDescriptor full(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_storage address{};
    const socklen_t length = Endpoint{loopback(Family::v4), Port(0)}.to_sockaddr(address);
    REQUIRE(::bind(full.get(), reinterpret_cast<sockaddr*>(&address), length) == 0);
    REQUIRE(::listen(full.get(), 0) == 0);
    const Endpoint remote = local_endpoint_of(full.get());
    std::vector<Peer> fill;
    for (int i = 0; i < 4; ++i) fill.push_back(Peer::tcp(g.loop, remote));
    const auto outcome = g.loop.get(g.transports.connect_tcp(g.local, remote, 50ms));
    REQUIRE(!outcome.has_value());
    CHECK(outcome.error().reaction == Reaction::broken);
    CHECK(outcome.error().code == ETIMEDOUT);
    CHECK(g.transports.make_room_for(loopback(Family::v4)));
}

TEST_CASE("closing a listener ends its sockets and its connections, and it can be opened again") {
    Gateway g;
    Peer peer = Peer::tcp(g.loop, g.local);
    REQUIRE(g.loop.until([&] { return g.transports.connection_count() == 1; }));
    g.transports.close_listener(g.local);
    CHECK(peer.receive().empty());
    CHECK(g.transports.send({Transport::udp, g.local, g.local, {}, {}}, "x").error().reaction == Reaction::broken);
    CHECK(g.transports.listen(g.local, {}).has_value());
}

TEST_CASE(
    "E-7: malformed requests get 400 where they can be answered, by the route that the gateway names, and not without limit") {
    Gateway g(Family::v4, {.bad_requests_per_second = 5});
    Peer peer = Peer::udp(g.loop, Family::v4), other = Peer::udp(g.loop, Family::v4);
    std::string bad = request_text({});
    bad.replace(bad.find("CSeq: 7 OPTIONS"), 15, "CSeq: 7 INVITE ");
    peer.send("\x80 garbage", g.local);
    peer.send(bad, g.local);
    const std::string answer = peer.receive();
    CHECK(answer.starts_with("SIP/2.0 400 "));
    CHECK(answer.find("z9hG4bKone") != std::string::npos);
    CHECK(g.transports.counters().malformed == 2);

    g.transports.set_reply_route([&](const Flow& flow) {
        Flow route = flow;
        route.remote = other.endpoint();
        return std::optional(route);
    });
    for (int i = 0; i < 20; ++i) peer.send(bad, g.local);
    REQUIRE(g.loop.until([&] { return g.transports.counters().malformed == 22; }));
    CHECK(other.receive().starts_with("SIP/2.0 400 "));
    CHECK(g.transports.counters().bad_requests_answered >= 5);
    CHECK(g.transports.counters().bad_requests_answered <= 7);
    CHECK(g.received.empty());
}

TEST_CASE("what is larger than its sender may send gets 513, is counted, and nobody sees it; others may send more") {
    for (const Family family : kFamilies) {
        Gateway g(family);
        const Endpoint known = free_endpoint(family);
        REQUIRE(g.transports.listen(known, {}).has_value());
        g.transports.set_message_limit([&](const Flow& flow) {
            return flow.local == known ? MessageLimit{} : MessageLimit{.message = 2000, .body = 100};
        });
        const auto with_body = [](std::string transport, std::size_t size) {
            return request_text(
                {.method = "MESSAGE", .transport = std::move(transport), .body = std::string(size, 'b')});
        };
        std::uint64_t refused = 0;
        for (const std::size_t size : {std::size_t{101}, std::size_t{3000}}) {
            Peer datagrams = Peer::udp(g.loop, family), stream = Peer::tcp(g.loop, g.local);
            datagrams.send(with_body("UDP", size), g.local);
            CHECK(datagrams.receive().starts_with("SIP/2.0 513 Message Too Large\r\n"));
            stream.send(with_body("TCP", size));
            CHECK(stream.receive_all().starts_with("SIP/2.0 513 "));
            refused += 2;
            CHECK(g.transports.counters().too_large == refused);
            datagrams.send(with_body("UDP", size), known);
            Peer other = Peer::tcp(g.loop, known);
            other.send(with_body("TCP", size));
            REQUIRE(g.has_received(refused));
        }
        Peer stream = Peer::tcp(g.loop, g.local);
        stream.send(with_body("TCP", 100));
        CHECK(g.has_received(refused + 1));
    }
}

TEST_CASE(
    "RFC 3261 §18.3: what a datagram holds behind its Content-Length is no part of the message; a larger "
    "Content-Length gets 400") {
    Gateway g;
    Peer peer = Peer::udp(g.loop, Family::v4);
    const std::string text = request_text({});
    peer.send(text + "INVITE sip:smuggled SIP/2.0\r\n", g.local);
    REQUIRE(g.has_received(1));
    CHECK(g.received[0].bytes == text);
    std::string larger = text;
    larger.replace(larger.find("Content-Length: 0"), 17, "Content-Length: 1");
    peer.send(larger, g.local);
    CHECK(peer.receive().starts_with("SIP/2.0 400 "));
    CHECK(g.received.size() == 1);
}

TEST_CASE("E-7: a stream that is out of step gets 400 when it can be answered, and is closed") {
    Gateway g;
    Peer peer = Peer::tcp(g.loop, g.local);
    std::string bad = request_text({.transport = "TCP"});
    bad.replace(bad.find("Content-Length: 0"), 17, "Content-Length: x");
    peer.send(bad);
    CHECK(peer.receive_all().starts_with("SIP/2.0 400 "));
    peer.close();
    Peer garbage = Peer::tcp(g.loop, g.local);
    garbage.send("\x16\x03\x01\x02 a TLS client hello\r\n\r\n");
    CHECK(garbage.receive_all().empty());
    garbage.close();
    CHECK(g.loop.until([&] { return g.closed.size() == 2; }));
    CHECK(g.transports.counters().malformed == 2);
}

TEST_CASE("E-5: STUN binding requests are answered with the address they came from, v4 and v6") {
    for (const Family family : kFamilies) {
        Gateway g(family);
        Peer peer = Peer::udp(g.loop, family);
        const std::string id(
            "\x21\x12\xA4\x42"
            "abcdefghijkl",
            16);
        peer.send(std::string("\x00\x01\x00\x00", 4) + id, g.local);
        const std::string answer = peer.receive();
        const std::size_t size = family == Family::v4 ? 8 : 20;
        REQUIRE(answer.size() == 24 + size);
        CHECK(answer.substr(0, 2) == std::string("\x01\x01", 2));
        CHECK(answer.substr(4, 16) == id);
        CHECK(answer.substr(20, 6) == std::string("\x00\x20\x00", 3) + static_cast<char>(size) + '\0' +
                                          (family == Family::v4 ? '\x01' : '\x02'));
        const auto byte = [&](std::size_t at) { return static_cast<unsigned char>(answer[at]); };
        CHECK(((byte(26) << 8 | byte(27)) ^ 0x2112) == peer.endpoint().port.value);
        for (std::size_t i = 0; i < size - 4; ++i)
            CHECK((byte(28 + i) ^ static_cast<unsigned char>(id[i])) == peer.endpoint().address.bytes()[i]);

        peer.send(std::string("\x00\x01\x00\x04\x21\x12\xA4\x42"
                              "abcdefghijkl"
                              "\x12\x34\x00\x00",
                              24),
                  g.local);
        const std::string unknown = peer.receive();
        CHECK(unknown.substr(0, 2) == std::string("\x01\x11", 2));
        CHECK(unknown.find(std::string("\x00\x0A\x00\x02\x12\x34", 6)) != std::string::npos);
        peer.send(std::string("\x01\x01\x00\x00", 4) + id, g.local);  // a response
        peer.send(std::string("\x00\x01\x00\x04", 4) + id + std::string("\x80\x22\x00\x08", 4),
                  g.local);  // a broken attribute
        REQUIRE(g.loop.until([&] { return g.transports.counters().stun_requests == 4; }));
        g.loop.drain(5ms);
        CHECK(!peer.try_receive());
    }
}

TEST_CASE("RFC 5626: CRLF keep-alives over UDP are no messages; a ping is answered") {
    Gateway g;
    Peer peer = Peer::udp(g.loop, Family::v4);
    for (const std::string_view other :
         {std::string_view(""), std::string_view("\r\n"), std::string_view("\0\0\0\0", 4)})
        peer.send(other, g.local);
    peer.send("\r\n\r\n", g.local);
    CHECK(peer.receive() == "\r\n");
    CHECK(g.transports.counters().keep_alives == 4);
    CHECK(g.transports.counters().malformed == 0);
}

TEST_CASE("a stream that throws ends like one that fails") {
    struct ThrowingStream final : ByteStream {
        Task<Result<std::size_t>> read(std::string&) override {
            throw std::runtime_error("our own fault");
            co_return 0u;
        }
        Task<Result<void>> write(std::string_view) override { co_return Result<void>{}; }
        void close(bool) override {}
    };
    Gateway g;
    const Flow flow =
        g.transports.adopt(std::make_unique<ThrowingStream>(), {Transport::tls, g.local, g.local, {}, {}});
    CHECK(g.loop.until([&] { return g.closed.size() == 1; }));
    CHECK(g.closed[0] == flow);
}

TEST_CASE("a handler that throws does not stop the loop") {
    Gateway g;
    int calls = 0;
    g.transports.on_message([&](OwnedMessage, const Flow&) {
        ++calls;
        throw std::runtime_error("our own fault");
    });
    Peer peer = Peer::udp(g.loop, Family::v4);
    peer.send(request_text({}), g.local);
    peer.send(request_text({}), g.local);
    CHECK(g.loop.until([&] { return calls == 2; }));
}

TEST_CASE("destroying the transports ends everything that is in flight, and the loop runs out of work") {
    Loop loop;
    const Endpoint local = free_endpoint(Family::v4);
    std::optional<Peer> peer;
    bool told = false;
    {
        Transports transports(loop.io.get_executor(), {});
        REQUIRE(transports.listen(local, {}).has_value());
        transports.on_closed([&](const Flow&) { told = true; });
        peer = Peer::tcp(loop, local);
        REQUIRE(loop.until([&] { return transports.connection_count() == 1; }));
    }
    loop.io.restart();
    loop.io.run();
    CHECK(!told);
    CHECK(peer->receive().empty());
}
