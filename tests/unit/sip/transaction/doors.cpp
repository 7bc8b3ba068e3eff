// Every message belongs to the door that it came through: responses, CANCELs and ACKs through each other one, UDP and
// TCP, IPv4 and IPv6.
#include <algorithm>

#include "sip/message/edit.h"
#include "sip/message/headers.h"
#include "tests/unit/sip/transport/net_support.h"

using namespace gmgate;
using namespace gmgate::sip;
using namespace gmgate::sip::test;

namespace {

constexpr Timers kUnhurried{2000ms, 8000ms, 10ms};  // nothing is retransmitted while a test looks

/// Two phones: each has two of our sockets (a server and a client port, as over SAs); and two sockets in clear.
struct House {
    explicit House(Family f)
        : family(f),
          transports(loop.io.get_executor(), {}),
          transactions(loop.io.get_executor(), transports, {}, [](const Flow&) { return kUnhurried; }) {
        for (Endpoint* local : {&alice_server, &alice_client, &bob_server, &bob_client, &clear, &other_clear}) {
            *local = free_endpoint(family);
            REQUIRE(transports.listen(*local, {}).has_value());
        }
        transactions.set_doors([this](const Flow& flow, Direction) {
            if (flow.local == alice_server || flow.local == alice_client) return Door{.owner = OwnerId{11}};
            if (flow.local == bob_server || flow.local == bob_client) return Door{.owner = OwnerId{12}};
            return door_of_ends(flow);
        });
        transactions.on_request([this](std::shared_ptr<ServerTransaction> t) { requests.push_back(std::move(t)); });
        transactions.on_stray([this](OwnedMessage m, const Flow&) { strays.emplace_back(m->start_line()); });
    }
    ~House() { transports.shutdown(); }

    std::vector<Endpoint> doors() const {
        return {alice_server, alice_client, bob_server, bob_client, clear, other_clear};
    }
    bool is_same_owner(const Endpoint& a, const Endpoint& b) const {
        const auto owner = [this](const Endpoint& e) {
            return e == alice_server || e == alice_client ? 1 : e == bob_server || e == bob_client ? 2 : 0;
        };
        return a == b || (owner(a) != 0 && owner(a) == owner(b));
    }
    std::string send(const std::string& method, const Flow& flow, Peer& receiver) {
        client = transactions.send(request_text({.method = method,
                                                 .branch = Transactions::new_branch(),
                                                 .transport = std::string(to_string(flow.transport))}),
                                   flow);
        return receiver.receive();
    }
    int next_status() {
        auto response = loop.get(client->next());
        CHECK_MESSAGE(response.has_value(), (response ? "" : response.error().text));
        return response ? (*response)->status() : 0;
    }
    std::uint64_t wrong() const { return transactions.counters().responses_wrong_door; }

    Family family;
    Loop loop;
    Transports transports;
    Transactions transactions;
    Endpoint alice_server, alice_client, bob_server, bob_client, clear, other_clear;
    std::vector<std::shared_ptr<ServerTransaction>> requests;
    std::vector<std::string> strays;
    std::unique_ptr<ClientTransaction> client;
};

Flow udp_flow(const Endpoint& local, const Endpoint& remote) {
    return {.transport = Transport::udp, .local = local, .remote = remote, .connection = {}, .mark = {}};
}

/// A connection from the peer to `local`, as we see it.
Flow flow_of(House& house, const Endpoint& local, const Peer& stream) {
    std::optional<Flow> flow;
    REQUIRE(house.loop.until(
        [&] { return (flow = house.transports.find_connection(local, stream.endpoint())).has_value(); }));
    return *flow;
}

}  // namespace

TEST_SUITE("doors") {
    TEST_CASE(
        "a response answers only through the door its request left by, for every pair of doors; elsewhere it is dropped and counted") {
        for (const Family family : {Family::v4, Family::v6}) {
            House house(family);
            Peer peer = Peer::udp(house.loop, family), same_host = Peer::udp(house.loop, family);
            for (const Endpoint& sent_by : house.doors())
                for (const Endpoint& comes_to : house.doors()) {
                    CAPTURE(sent_by.to_string());
                    CAPTURE(comes_to.to_string());
                    const std::string request = house.send("INVITE", udp_flow(sent_by, peer.endpoint()), peer);
                    const auto before = house.wrong();
                    same_host.send(response_text(request, 200, "stranger"),
                                   comes_to);  // another port of the same host may answer
                    if (house.is_same_owner(sent_by, comes_to)) {
                        CHECK(house.next_status() == 200);
                        CHECK(house.wrong() == before);
                    } else {
                        REQUIRE(house.loop.until([&] { return house.wrong() == before + 1; }));
                        peer.send(response_text(request, 180), sent_by);
                        CHECK(house.next_status() == 180);  // the stranger's 200 is not in front of it
                    }
                    house.client.reset();
                }
            CHECK(house.strays.empty());
        }
    }

    TEST_CASE("a response from another address is dropped, whatever its branch, to a request of any method") {
        House house(Family::v4);
        Peer peer = Peer::udp(house.loop, Family::v4), stranger = Peer::udp(house.loop, *Address::parse("127.0.0.2"));
        std::vector<std::string> told;
        house.transactions.on_wrong_door([&](const Message& response, const Flow& came, const Flow& sent) {
            CHECK(came.remote == stranger.endpoint());
            CHECK(sent.remote == peer.endpoint());
            told.emplace_back(response.method_name());
        });
        for (const char* method : {"MESSAGE", "BYE", "OPTIONS", "INVITE"}) {
            const std::string request = house.send(method, udp_flow(house.clear, peer.endpoint()), peer);
            const auto before = house.wrong();
            for (const int status : {100, 180, 200, 486}) stranger.send(response_text(request, status), house.clear);
            REQUIRE(house.loop.until([&] { return house.wrong() == before + 4; }));
            peer.send(response_text(request, 404), house.clear);
            CHECK(house.next_status() == 404);
        }
        CHECK(told.size() == 16);
        CHECK(house.strays.empty());
        CHECK(!stranger.try_receive());  // no ACK went astray
    }

    TEST_CASE(
        "over TCP in clear a response comes on the connection of the request, and on another of that host only when it has ended") {
        for (const Family family : {Family::v4, Family::v6}) {
            House house(family);
            Peer first = Peer::tcp(house.loop, house.clear), second = Peer::tcp(house.loop, house.clear),
                 datagrams = Peer::udp(house.loop, family);
            const Flow flow = flow_of(house, house.clear, first);
            (void)flow_of(house, house.clear, second);
            const std::string request = house.send("INVITE", flow, first);
            second.send(response_text(request, 200));
            datagrams.send(response_text(request, 200), house.clear);
            REQUIRE(house.loop.until([&] { return house.wrong() == 2; }));
            first.send(response_text(request, 180));
            CHECK(house.next_status() == 180);
            first.reset();
            const auto lost = house.loop.get(house.client->next());
            REQUIRE(!lost.has_value());
            CHECK(is_connection_lost(lost.error()));
            second.send(response_text(request, 200));
            CHECK(house.next_status() == 200);
            CHECK(house.strays.empty());
        }
    }

    TEST_CASE(
        "over TCP a known owner answers on any connection of its own, also after the transaction has moved, and nobody else does") {
        House house(Family::v4);
        Peer first = Peer::tcp(house.loop, house.alice_server), second = Peer::tcp(house.loop, house.alice_client),
             bob = Peer::tcp(house.loop, house.bob_server);
        const std::string request = house.send("INVITE", flow_of(house, house.alice_server, first), first);
        bob.send(response_text(request, 200));
        REQUIRE(house.loop.until([&] { return house.wrong() == 1; }));
        second.send(response_text(request, 180));
        CHECK(house.next_status() == 180);
        house.client->move_to(flow_of(house, house.bob_server, bob));  // whoever it was moved to is asked from now on
        first.send(response_text(request, 183));
        REQUIRE(house.loop.until([&] { return house.wrong() == 2; }));
        bob.send(response_text(request, 200));
        CHECK(house.next_status() == 200);
    }

    TEST_CASE(
        "a CANCEL ends only the INVITE that came through its door, and an ACK confirms only there, for every pair of doors") {
        for (const Family family : {Family::v4, Family::v6}) {
            House house(family);
            Peer peer = Peer::udp(house.loop, family), same_host = Peer::udp(house.loop, family);
            int number = 0;
            for (const Endpoint& invited : house.doors())
                for (const Endpoint& cancelled : house.doors()) {
                    CAPTURE(invited.to_string());
                    CAPTURE(cancelled.to_string());
                    const std::string branch = "z9hG4bK" + std::to_string(++number);
                    const std::size_t before = house.requests.size();
                    peer.send(request_text({.method = "INVITE", .branch = branch}), invited);
                    REQUIRE(house.loop.until([&] { return house.requests.size() > before; }));
                    const auto invite = house.requests.back();
                    bool told = false;
                    invite->on_cancel([&](const std::string&) { told = true; });
                    (void)invite->respond(make_response(invite->request(), 180, "Ringing", "g1"));
                    const bool same = house.is_same_owner(invited, cancelled);
                    same_host.send(request_text({.method = "CANCEL", .branch = branch}), cancelled);
                    if (same) REQUIRE(house.loop.until([&] { return told; }));
                    else CHECK(same_host.receive().starts_with("SIP/2.0 481"));
                    CHECK(told == same);

                    (void)invite->respond(make_response(invite->request(), 487, "Request Terminated", "g1"));
                    const std::size_t strays = house.strays.size();
                    same_host.send(request_text({.method = "ACK", .branch = branch, .to_tag = "g1"}), cancelled);
                    if (same) {
                        peer.send(request_text({.method = "INVITE", .branch = branch}),
                                  invited);  // confirmed: the 487 does not come again
                        const auto seen = house.transactions.counters().retransmissions_in;
                        REQUIRE(
                            house.loop.until([&] { return house.transactions.counters().retransmissions_in > seen; }));
                        CHECK(house.strays.size() == strays);
                    } else {
                        REQUIRE(house.loop.until([&] { return house.strays.size() == strays + 1; }));
                    }
                    house.loop.drain(1ms);
                    while (peer.try_receive()) {}
                }
        }
    }

    TEST_CASE(
        "a request again on a new connection of its owner is a retransmission; on somebody else's it is a new one") {
        House house(Family::v4);
        const std::string text = request_text({.method = "MESSAGE", .transport = "TCP"});
        Peer first = Peer::tcp(house.loop, house.alice_server);
        first.send(text);
        REQUIRE(house.loop.until([&] { return house.requests.size() == 1; }));
        first.reset();
        Peer again = Peer::tcp(house.loop, house.alice_client);
        again.send(text);
        REQUIRE(house.loop.until([&] { return house.transactions.counters().retransmissions_in == 1; }));
        Peer bob = Peer::tcp(house.loop, house.bob_server), clear = Peer::tcp(house.loop, house.clear);
        bob.send(text);
        REQUIRE(house.loop.until([&] { return house.requests.size() == 2; }));
        clear.send(text);
        REQUIRE(house.loop.until([&] { return house.requests.size() == 3; }));
        CHECK(house.requests[0]->tag() != house.requests[1]->tag());
    }

    TEST_CASE(
        "in clear over TCP a CANCEL comes on the INVITE's connection, from that host on another one only when it has ended") {
        House house(Family::v4);
        Peer first = Peer::tcp(house.loop, house.clear), second = Peer::tcp(house.loop, house.clear);
        first.send(request_text({.method = "INVITE", .transport = "TCP"}));
        REQUIRE(house.loop.until([&] { return house.requests.size() == 1; }));
        bool told = false;
        house.requests[0]->on_cancel([&](const std::string&) { told = true; });
        second.send(request_text({.method = "CANCEL", .transport = "TCP"}));
        CHECK(second.receive().starts_with("SIP/2.0 481"));
        CHECK(!told);
        first.reset();
        REQUIRE(house.loop.until([&] { return house.transports.connection_count() == 1; }));
        second.send(request_text({.method = "CANCEL", .transport = "TCP"}));
        CHECK(second.receive().starts_with("SIP/2.0 200"));
        CHECK(told);
    }
}

TEST_SUITE("a connection over which a phone registers while a call is under way") {
    TEST_CASE("its CANCEL, its ACK and its answers still belong to what came and went before; nobody else's do") {
        House house(Family::v4);
        bool is_registered = false;
        Peer phone = Peer::tcp(house.loop, house.clear), other = Peer::tcp(house.loop, house.clear);
        const Flow flow = flow_of(house, house.clear, phone);
        house.transactions.set_doors([&](const Flow& of, Direction) {
            if (!is_registered || of.local != house.clear) return door_of_ends(of);
            return Door{.owner = OwnerId{of.connection == flow.connection ? 11u : 12u}};
        });
        phone.send(request_text({.method = "INVITE", .transport = "TCP"}));
        REQUIRE(house.loop.until([&] { return house.requests.size() == 1; }));
        bool told = false;
        house.requests[0]->on_cancel([&](const std::string&) { told = true; });
        const std::string asked = house.send("INFO", flow, phone);
        is_registered = true;

        other.send(request_text({.method = "CANCEL", .transport = "TCP"}));
        CHECK(other.receive().starts_with("SIP/2.0 481"));
        other.send(response_text(asked, 200));
        REQUIRE(house.loop.until([&] { return house.wrong() == 1; }));
        CHECK(!told);
        phone.send(response_text(asked, 200));
        CHECK(house.next_status() == 200);
        phone.send(request_text({.method = "CANCEL", .transport = "TCP"}));
        REQUIRE(house.loop.until([&] { return told; }));
        (void)house.requests[0]->respond(make_response(house.requests[0]->request(), 487, "Request Terminated", "g1"));
        const std::string ack = request_text({.method = "ACK", .transport = "TCP", .to_tag = "g1"});
        other.send(ack);
        REQUIRE(house.loop.until([&] { return house.strays.size() == 1; }));
        phone.send(ack);
        house.loop.drain(5ms);
        CHECK(house.strays.size() == 1);
    }
}

TEST_SUITE("what a CANCEL says") {
    TEST_CASE("the handler gets the header fields that the next CANCEL keeps, and the next CANCEL has them") {
        House house(Family::v4);
        Peer caller = Peer::udp(house.loop, Family::v4), callee = Peer::udp(house.loop, Family::v4);
        caller.send(request_text({.method = "INVITE"}), house.alice_server);
        REQUIRE(house.loop.until([&] { return house.requests.size() == 1; }));
        std::string fields;
        house.requests[0]->on_cancel([&](std::string of_cancel) { fields = std::move(of_cancel); });
        std::string cancel = request_text({.method = "CANCEL"});
        cancel.insert(
            cancel.find("Content-Length"),
            "Reason: SIP;cause=200;text=\"Call completed elsewhere\"\r\nReason: Q.850;cause=26\r\nPrivacy: id\r\n"
            "P-Asserted-Identity: <sip:king@example.com>\r\nRequire: 100rel\r\n");
        caller.send(cancel, house.alice_server);
        REQUIRE(house.loop.until([&] { return !fields.empty(); }));
        CHECK(fields ==
              "Reason: SIP;cause=200;text=\"Call completed elsewhere\"\r\nReason: Q.850;cause=26\r\nPrivacy: id\r\n");

        std::string invite = request_text({.method = "INVITE", .branch = Transactions::new_branch()});
        invite.insert(invite.find("Content-Length"),
                      "Reject-Contact: *;automata\r\nd: no-fork\r\nAccept-Contact: *;audio\r\n");
        house.client = house.transactions.send(invite, udp_flow(house.bob_client, callee.endpoint()));
        const std::string received = callee.receive();
        callee.send(response_text(received, 180), house.bob_server);
        CHECK(house.next_status() == 180);
        house.client->cancel(fields);
        const auto sent = OwnedMessage::parse(callee.receive());
        REQUIRE(sent.has_value());
        CHECK((*sent)->method() == Method::cancel);
        for (const char* line :
             {"\r\nReason: SIP;cause=200;text=\"Call completed elsewhere\"\r\n", "\r\nReason: Q.850;cause=26\r\n",
              "\r\nPrivacy: id\r\n", "\r\nReject-Contact: *;automata\r\n", "\r\nd: no-fork\r\n",
              "\r\nAccept-Contact: *;audio\r\n"})  // RFC 3841: as in the INVITE
            CHECK_MESSAGE((*sent)->bytes().find(line) != std::string_view::npos, line);
        CHECK((*sent)->bytes().find("Require:") == std::string_view::npos);
    }
}

TEST_SUITE("responses that wait") {
    TEST_CASE("a final response is never lost behind provisional ones, nor is an error behind them") {
        House house(Family::v4);
        Peer peer = Peer::udp(house.loop, Family::v4);
        const std::string request = house.send("INVITE", udp_flow(house.clear, peer.endpoint()), peer);
        for (int i = 0; i < 100; ++i) peer.send(response_text(request, 180, "t" + std::to_string(i)), house.clear);
        peer.send(response_text(request, 200), house.clear);
        house.loop.drain(50ms);
        int provisional = 0, status = 0;
        while ((status = house.next_status()) < 200 && status != 0) ++provisional;
        CHECK(status == 200);
        CHECK(provisional <= 64);
        CHECK(provisional >= 32);
    }
}
