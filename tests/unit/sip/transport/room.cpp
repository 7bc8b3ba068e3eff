// Room for one more connection: strangers give way, and do not stay for ever.
#include <doctest/doctest.h>

#include "tests/unit/sip/transport/net_support.h"

using namespace gmgate;
using namespace gmgate::sip;
using namespace gmgate::sip::test;

namespace {

struct OpenDoor {
    explicit OpenDoor(TransportLimits limits) : transports(loop.io.get_executor(), limits) {
        transports.on_message([this](OwnedMessage, const Flow& flow) { heard.push_back(flow); });
        transports.set_standing([this](const Flow& flow) {
            return flow.connection == friendly ? Standing::known
                   : flow.connection == around ? Standing::around
                                               : Standing::unknown;
        });
        REQUIRE(transports.listen(local, {}).has_value());
    }
    ~OpenDoor() {
        transports.shutdown();
        CHECK(loop.until([&] { return transports.connection_count() == 0; }));
    }
    /// A connection from which one message came.
    Peer stranger() {
        Peer peer = Peer::tcp(loop, local);
        say(peer);
        return peer;
    }
    void say(Peer& peer) {
        const auto before = heard.size();
        peer.send(request_text({.transport = "TCP"}));
        REQUIRE(loop.until([&] { return heard.size() > before; }));
    }
    Loop loop;
    Transports transports;
    Endpoint local = free_endpoint(Family::v4);
    std::vector<Flow> heard;
    ConnectionId friendly, around;
};

}  // namespace

TEST_CASE("TCP: at a limit the stranger longest without a message gives way, and nobody who is known or kept") {
    for (const bool of_source : {false, true}) {
        CAPTURE(of_source);
        OpenDoor door(of_source ? TransportLimits{.connections_per_address = 4} : TransportLimits{.connections = 4});
        Peer known = door.stranger();
        door.friendly = door.heard.back().connection;
        Peer kept = door.stranger();
        const auto kept_id = door.heard.back().connection;
        door.transports.keep_open(kept_id, true);
        Peer lively = door.stranger(), quiet = door.stranger();
        const auto quiet_id = door.heard.back().connection;
        door.say(lively);
        Peer newcomer = door.stranger();  // served
        CHECK(quiet.receive().empty());
        CHECK_FALSE(door.transports.is_open(quiet_id));
        CHECK(door.transports.counters().connections_gave_way == 1);
        CHECK(door.transports.counters().connections_refused_limit == 0);
        for (Peer* stays : {&known, &kept, &lively, &newcomer}) door.say(*stays);
    }
}

TEST_CASE("TCP: a stranger at an address where somebody is known gives way last, however silent") {
    OpenDoor door({.connections = 3});
    Peer neighbour = door.stranger();
    door.around = door.heard.back().connection;
    Peer other = door.stranger(), third = door.stranger();
    Peer newcomer = door.stranger();
    CHECK(other.receive().empty());
    CHECK(door.transports.is_open(door.around));
    for (Peer* stays : {&neighbour, &third, &newcomer}) door.say(*stays);
}

TEST_CASE("TCP: with nobody but known peers a newcomer is refused, as ever") {
    OpenDoor door({.connections = 1});
    Peer known = door.stranger();
    door.friendly = door.heard.back().connection;
    Peer newcomer = Peer::tcp(door.loop, door.local);
    CHECK(newcomer.receive().empty());
    CHECK(door.transports.counters().connections_refused_limit == 1);
    CHECK(door.transports.counters().connections_gave_way == 0);
    door.say(known);
}

TEST_CASE("an IPv6 /64 is one source, whichever of its addresses are used") {
    Loop loop;
    Transports transports(loop.io.get_executor(), {.connections_per_address = 1});
    const Endpoint local = free_endpoint(Family::v6);
    REQUIRE(transports.listen(local, {}).has_value());
    Peer one = Peer::tcp(loop, local);
    REQUIRE(loop.until([&] { return transports.connection_count() == 1; }));
    CHECK_FALSE(transports.make_room_for(*Address::parse("::2")));
    CHECK(transports.make_room_for(*Address::parse("0:0:0:1::1")));
    transports.shutdown();
    CHECK(loop.until([&] { return transports.connection_count() == 0; }));
}

TEST_CASE("TCP: a stranger's connection ends after its time, however busy; one that became known stays") {
    OpenDoor door({.stranger_lifetime = 1s});
    Peer known = door.stranger();
    door.friendly = door.heard.back().connection;
    Peer busy = door.stranger();
    const auto id = door.heard.back().connection;
    std::size_t told = 0;
    const bool has_ended = door.loop.until([&] {
        if (!door.transports.is_open(id)) return true;
        if (++told % 16 == 0) busy.send(request_text({.transport = "TCP"}));
        return false;
    });
    CHECK(has_ended);
    CHECK(told > 16);
    CHECK(door.transports.counters().connections_outlived == 1);
    door.say(known);
}

TEST_CASE("whoever is not admitted gets nothing: no answer to a datagram, and a connection that is reset unread") {
    Loop loop;
    Transports transports(loop.io.get_executor(), {});
    const Endpoint local = free_endpoint(Family::v4);
    const auto stranger = *Address::parse("127.0.0.2");
    int heard = 0, refused = 0;
    transports.on_message([&](OwnedMessage, const Flow&) { ++heard; });
    ListenOptions options;
    options.admits = [&](const Endpoint& remote) {
        if (remote.address == stranger) ++refused;
        return remote.address != stranger;
    };
    REQUIRE(transports.listen(local, options).has_value());
    Peer outside = Peer::udp(loop, stranger), inside = Peer::udp(loop, Family::v4);
    outside.send("\r\n\r\n", local);
    outside.send(request_text({}), local);
    outside.send("nonsense\r\n\r\n", local);
    REQUIRE(loop.until([&] { return refused == 3; }));
    inside.send(request_text({}), local);
    REQUIRE(loop.until([&] { return heard == 1; }));
    CHECK_FALSE(outside.try_receive().has_value());
    CHECK(transports.counters().malformed == 0);

    auto fd = open_connecting_socket({stranger, Port(0)}, local);
    REQUIRE(fd.has_value());
    REQUIRE(loop.until([&] { return refused == 4; }));
    CHECK(transports.counters().connections_accepted == 0);
    Peer connected = Peer::tcp(loop, local);
    connected.send(request_text({.transport = "TCP"}));
    CHECK(loop.until([&] { return heard == 2; }));
    transports.shutdown();
    CHECK(loop.until([&] { return transports.connection_count() == 0; }));
}
