// Client and server transactions against a scripted UDP peer, with very small timers.
#include <stdexcept>

#include "sip/message/edit.h"
#include "tests/unit/sip/transport/net_support.h"

using namespace gmgate;
using namespace gmgate::sip;
using namespace gmgate::sip::test;

namespace {

constexpr Timers kFast{5ms, 20ms, 10ms};        // 64·T1 = 320 ms
constexpr Timers kPatient{200ms, 800ms, 10ms};  // nothing is retransmitted while a test looks

struct Layer {
    explicit Layer(Timers timers = kFast, TransactionLimits limits = {})
        : transports(loop.io.get_executor(), {}),
          transactions(loop.io.get_executor(), transports, limits, [timers](const Flow&) { return timers; }),
          local(free_endpoint(Family::v4)),
          peer(Peer::udp(loop, Family::v4)) {
        REQUIRE(transports.listen(local, {}).has_value());
        transactions.on_request([this](std::shared_ptr<ServerTransaction> t) { requests.push_back(std::move(t)); });
        transactions.on_stray([this](OwnedMessage m, const Flow&) { strays.emplace_back(m->start_line()); });
    }
    ~Layer() {
        requests.clear();
        client.reset();
        CHECK(loop.until([&] { return transactions.server_count() == 0 && transactions.client_count() == 0; }));
        transports.shutdown();
    }

    std::shared_ptr<ServerTransaction> receive(const RequestText& r) {
        const std::size_t before = requests.size();
        peer.send(request_text(r), local);
        REQUIRE(loop.until([&] { return requests.size() > before; }));
        return requests.back();
    }
    Flow to_peer() const { return {Transport::udp, local, peer.endpoint(), {}, {}}; }
    /// Sends a request of ours and returns what the peer got.
    std::string send(const std::string& method, const Flow& flow) {
        client = transactions.send(request_text({.method = method,
                                                 .branch = Transactions::new_branch(),
                                                 .transport = std::string(to_string(flow.transport))}),
                                   flow);
        return flow.transport == Transport::udp ? peer.receive() : "";
    }
    void respond(const std::string& request, int status, std::string_view tag = "b1") {
        peer.send(response_text(request, status, tag), local);
    }
    Result<OwnedMessage> next() { return loop.get(client->next()); }
    int next_status() {
        auto response = next();
        CHECK_MESSAGE(response.has_value(), (response ? "" : response.error().text));
        return response ? (*response)->status() : 0;
    }
    /// Receives until a message starts like that; the others (retransmissions) are dropped.
    std::string receive_until(std::string_view start) {
        std::string bytes;
        for (int i = 0; i < 100 && !bytes.starts_with(start); ++i) bytes = peer.receive();
        CHECK(bytes.starts_with(start));
        return bytes;
    }

    Loop loop;
    Transports transports;
    Transactions transactions;
    Endpoint local;
    Peer peer;
    std::vector<std::shared_ptr<ServerTransaction>> requests;
    std::vector<std::string> strays;
    std::unique_ptr<ClientTransaction> client;
};

std::string answer(const ServerTransaction& t, int status, std::string_view tag = "g1") {
    return make_response(t.request(), status, "Text", tag);
}

}  // namespace

TEST_SUITE("server transactions") {
    TEST_CASE("a final response that may not leave at the moment is sent when the request comes again") {
        Layer l;
        bool may_leave = false;
        l.transports.set_gate([&](const Flow&) { return may_leave; });
        const auto t = l.receive({});
        CHECK_FALSE(t->respond(answer(*t, 200)).has_value());
        may_leave = true;
        l.peer.send(request_text({}), l.local);
        CHECK(l.receive_until("SIP/2.0 200").find("tag=g1") != std::string::npos);
        CHECK(l.requests.size() == 1);
        l.peer.send(request_text({}), l.local);  // and from then on as ever
        CHECK(l.peer.receive().starts_with("SIP/2.0 200"));
    }

    TEST_CASE(
        "RFC 3261 §18.2.2: a peer that ends its sending side gets the answers due to it, and then the end; nobody "
        "finds the connection meanwhile") {
        Layer l;
        Peer stream = Peer::tcp(l.loop, l.local);
        stream.send(request_text({.branch = "z9hG4bKfirst", .transport = "TCP"}) +
                    request_text({.branch = "z9hG4bKsecond", .transport = "TCP"}));
        REQUIRE(l.loop.until([&] { return l.requests.size() == 2; }));
        const Flow flow = l.requests[0]->flow();
        bool is_lost = false;
        l.client = l.transactions.send(request_text({.branch = Transactions::new_branch(), .transport = "TCP"}), flow);
        CHECK(stream.receive().starts_with("OPTIONS "));
        l.loop.start(l.client->next(), [&](const Result<OwnedMessage>& outcome) { is_lost = !outcome; });
        ::shutdown(stream.fd(), SHUT_WR);
        REQUIRE(l.loop.until([&] { return is_lost; }));  // what we have asked it, it cannot answer any more
        CHECK_FALSE(l.transports.is_open(flow.connection));
        CHECK_FALSE(l.transports.find_connection(flow.local, flow.remote).has_value());
        CHECK(l.transports.can_answer(flow.connection));
        CHECK(l.requests[1]->respond(answer(*l.requests[1], 200)).has_value());
        CHECK(stream.receive().find("z9hG4bKsecond") != std::string::npos);
        CHECK(l.transports.can_answer(flow.connection));
        CHECK(l.requests[0]->respond(answer(*l.requests[0], 404)).has_value());
        const std::string rest = stream.receive_all();
        CHECK(rest.starts_with("SIP/2.0 404"));
        CHECK(l.loop.until([&] { return l.transports.connection_count() == 0; }));
    }

    TEST_CASE(
        "a peer that has ended its sending side and gone: the connection ends with the answer that nobody takes, with "
        "the transaction, or at once without any") {
        Layer l;
        Peer gone = Peer::tcp(l.loop, l.local), silent = Peer::tcp(l.loop, l.local), idle = Peer::tcp(l.loop, l.local);
        gone.send(request_text({.branch = "z9hG4bKgone", .transport = "TCP"}));
        REQUIRE(l.loop.until([&] { return l.requests.size() == 1; }));
        silent.send(request_text({.branch = "z9hG4bKsilent", .transport = "TCP"}));
        REQUIRE(l.loop.until([&] { return l.requests.size() == 2; }));
        idle.close();
        CHECK(l.loop.until([&] { return l.transports.connection_count() == 2; }));
        gone.close();
        REQUIRE(l.loop.until([&] { return !l.transports.is_open(l.requests[0]->flow().connection); }));
        CHECK(l.requests[0]->respond(answer(*l.requests[0], 200)).has_value());
        CHECK(l.loop.until([&] { return l.transports.connection_count() == 1; }));
        ::shutdown(silent.fd(), SHUT_WR);
        CHECK(l.loop.until([&] {
            return l.transports.connection_count() == 0;
        }));  // 64*T1: the transaction has ended without an answer
        CHECK(silent.receive_all().find("SIP/2.0 2") == std::string::npos);  // a 100 at most
    }

    TEST_CASE("a retransmitted request is absorbed, then answered with the same bytes") {
        Layer l;
        const auto t = l.receive({});
        l.peer.send(request_text({}), l.local);
        REQUIRE(l.loop.until([&] { return l.transactions.counters().retransmissions_in == 1; }));
        CHECK(t->respond(answer(*t, 200)).has_value());
        CHECK(t->is_completed());
        const std::string first = l.peer.receive();
        l.peer.send(request_text({}), l.local);
        CHECK(l.peer.receive() == first);
        CHECK(l.requests.size() == 1);
        CHECK(l.transactions.counters().retransmissions_out == 1);
    }

    TEST_CASE(
        "RFC 3261 8.2.7: a forgotten refusal leaves nothing; a copy comes up again and has the same tag, and the ACK is absorbed") {
        Layer l;
        std::string tag;
        for (int copy = 0; copy < 2; ++copy) {
            const auto t = l.receive({.method = "INVITE"});
            if (tag.empty()) tag = t->tag();
            CHECK(t->tag() == tag);
            t->forget();  // nothing to forget before the answer
            CHECK(l.transactions.server_count() == 1);
            CHECK(t->respond(answer(*t, 403, t->tag())).has_value());
            t->forget();
            CHECK(l.transactions.server_count() == 0);
            CHECK(l.peer.receive().starts_with("SIP/2.0 403"));
        }
        CHECK(l.receive({.method = "INVITE", .branch = "z9hG4bKother"})->tag() != tag);
        l.peer.send(request_text({.method = "ACK", .to_tag = tag}), l.local);
        l.peer.send(request_text({.method = "ACK", .to_tag = "other"}), l.local);
        REQUIRE(l.loop.until([&] { return !l.strays.empty(); }));
        CHECK(l.strays.size() == 1);  // the second one: nobody here gave that tag
    }

    TEST_CASE("what may be forgotten in a crowd stays while the table is at most half full") {
        Layer l(kFast, {.server_transactions = 4});
        for (const char* branch : {"z9hG4bKa", "z9hG4bKb", "z9hG4bKc", "z9hG4bKd"}) {
            const auto t = l.receive({.branch = branch});
            CHECK(t->respond(answer(*t, 404)).has_value());
            t->forget_when_crowded();
            CHECK(l.transactions.server_count() <= 2);
        }
        CHECK(l.transactions.server_count() == 2);
        CHECK(l.transactions.counters().refused_limit == 0);
    }

    TEST_CASE(
        "branch, sent-by, method and source address tell transactions apart; a second final response is ignored") {
        Layer l;
        const auto one = l.receive({});
        CHECK(l.receive({.branch = "z9hG4bKother"}) != one);
        CHECK(l.receive({.sent_by = "ue.example.com:5062"}) != one);
        CHECK(l.receive({.method = "MESSAGE"}) != one);
        l.peer.send(request_text({.sent_by = "UE.example.com:5060"}), l.local);
        REQUIRE(l.loop.until([&] { return l.transactions.counters().retransmissions_in == 1; }));
        CHECK(l.transactions.server_count() == 4);
        CHECK(one->respond(answer(*one, 200)).has_value());
        CHECK(one->respond(answer(*one, 500)).has_value());
        CHECK(l.peer.receive().starts_with("SIP/2.0 200"));
        l.loop.drain(5ms);
        CHECK(!l.peer.try_receive());
    }

    TEST_CASE("RFC 4475 3.2.1: without a real branch the RFC 2543 fields tell transactions apart") {
        Layer l;
        for (const char* branch : {"", "z9hG4bK", "old-style"}) {
            const auto t = l.receive({.method = "INVITE", .branch = branch});
            const auto before = l.transactions.counters().retransmissions_in;
            l.peer.send(request_text({.method = "INVITE", .branch = branch}), l.local);
            REQUIRE(l.loop.until([&] { return l.transactions.counters().retransmissions_in == before + 1; }));
            CHECK(t->respond(answer(*t, 486)).has_value());
            l.receive_until("SIP/2.0 486");
            l.peer.send(request_text({.method = "ACK", .branch = branch, .to_tag = "g1"}), l.local);
        }
        CHECK(l.requests.size() == 3);
        CHECK(l.loop.until([&] { return l.transactions.server_count() == 0; }));
        CHECK(l.strays.empty());
    }

    TEST_CASE("B-15: responses and their retransmissions take the reply flow") {
        Layer l;
        Peer other = Peer::udp(l.loop, Family::v4);
        const auto t = l.receive({});
        CHECK(t->reply_flow() == t->flow());
        Flow reply = t->flow();
        reply.remote = other.endpoint();
        t->set_reply_flow(reply);
        CHECK(t->respond(answer(*t, 200)).has_value());
        CHECK(other.receive().starts_with("SIP/2.0 200"));
        l.peer.send(request_text({}), l.local);
        CHECK(other.receive().starts_with("SIP/2.0 200"));
        CHECK(!l.peer.try_receive());
    }

    TEST_CASE(
        "INVITE: 100 by itself, provisional responses repeated, 486 retransmitted until the ACK, which is absorbed") {
        Layer l;
        const auto t = l.receive({.method = "INVITE"});
        CHECK(l.peer.receive().starts_with("SIP/2.0 100"));
        CHECK(t->respond(answer(*t, 180)).has_value());
        CHECK(l.peer.receive().starts_with("SIP/2.0 180"));
        l.peer.send(request_text({.method = "INVITE"}), l.local);
        CHECK(l.peer.receive().starts_with("SIP/2.0 180"));
        CHECK(t->respond(answer(*t, 486)).has_value());
        for (int i = 0; i < 3; ++i) CHECK(l.peer.receive().starts_with("SIP/2.0 486"));
        l.peer.send(request_text({.method = "ACK", .to_tag = "g1"}), l.local);
        CHECK(l.loop.until([&] { return l.transactions.server_count() == 0; }));
        CHECK(l.strays.empty());
        CHECK(l.transactions.counters().timeouts == 0);
    }

    TEST_CASE("INVITE: without an ACK the transaction ends by Timer H, counted") {
        Layer l;
        const auto t = l.receive({.method = "INVITE"});
        CHECK(t->respond(answer(*t, 486)).has_value());
        CHECK(l.loop.until([&] { return l.transactions.server_count() == 0; }));
        CHECK(l.transactions.counters().timeouts == 1);
        CHECK(l.transactions.counters().retransmissions_out >= 5);
    }

    TEST_CASE("RFC 6026: after a 2xx INVITEs are absorbed, more 2xx pass, and the ACK is the core's") {
        Layer l;
        const auto t = l.receive({.method = "INVITE"});
        CHECK(t->respond(answer(*t, 200)).has_value());
        CHECK(l.peer.receive().starts_with("SIP/2.0 200"));
        l.peer.send(request_text({.method = "INVITE"}), l.local);
        REQUIRE(l.loop.until([&] { return l.transactions.counters().retransmissions_in == 1; }));
        CHECK(t->respond(answer(*t, 486)).has_value());
        CHECK(t->respond(answer(*t, 200, "g2")).has_value());
        CHECK(l.peer.receive().find("tag=g2") != std::string::npos);
        l.peer.send(request_text({.method = "ACK", .branch = "z9hG4bKack", .to_tag = "g1"}), l.local);
        REQUIRE(l.loop.until([&] { return l.strays.size() == 1; }));
        CHECK(l.strays[0].starts_with("ACK "));
        CHECK(l.loop.until([&] { return l.transactions.server_count() == 0; }));
        CHECK(l.requests.size() == 1);
        CHECK(t->respond(answer(*t, 200)).has_value());
        CHECK(l.peer.receive().starts_with("SIP/2.0 200"));
    }

    TEST_CASE(
        "CANCEL: answered by the layer each time, told once; without its INVITE, or from another address, it gets 481") {
        Layer l(kPatient);
        const auto t = l.receive({.method = "INVITE"});
        int told = 0;
        t->on_cancel([&](const std::string&) { ++told; });
        for (int i = 0; i < 2; ++i) {
            l.peer.send(request_text({.method = "CANCEL"}), l.local);
            const std::string ok = l.receive_until("SIP/2.0 200");
            CHECK(ok.find("CSeq: 7 CANCEL") != std::string::npos);
        }
        CHECK(told == 1);
        l.peer.send(request_text({.method = "CANCEL", .branch = "z9hG4bKnone"}), l.local);
        CHECK(l.receive_until("SIP/2.0 481").find("CSeq: 7 CANCEL") != std::string::npos);
        Peer other = Peer::udp(l.loop, *Address::parse("127.0.0.2"));
        other.send(request_text({.method = "CANCEL"}), l.local);
        CHECK(other.receive().starts_with("SIP/2.0 481"));
        CHECK(l.transactions.counters().cancels_unmatched == 2);
        CHECK(l.strays.empty());
        CHECK(l.transactions.server_count() == 1);  // nothing is left of them

        CHECK(t->respond(answer(*t, 487)).has_value());
        l.receive_until("SIP/2.0 487");
        l.peer.send(request_text({.method = "ACK", .to_tag = "g1"}), l.local);
        CHECK(l.loop.until([&] { return l.transactions.server_count() == 0; }));
    }

    TEST_CASE("CANCEL that comes before the handler asks is told when it does") {
        Layer l(kPatient);
        const auto t = l.receive({.method = "INVITE"});
        l.peer.send(request_text({.method = "CANCEL"}), l.local);
        l.receive_until("SIP/2.0 200");
        bool told = false;
        t->on_cancel([&](const std::string&) { told = true; });
        CHECK(told);
        CHECK(t->respond(answer(*t, 487)).has_value());
        l.peer.send(request_text({.method = "ACK", .to_tag = "g1"}), l.local);
        CHECK(l.loop.until([&] { return l.transactions.server_count() == 0; }));
    }

    TEST_CASE("RFC 4320: a non-INVITE request gets no 408 and no provisional response but a late 100") {
        Layer l;
        const auto t = l.receive({});
        CHECK(t->respond(answer(*t, 183)).has_value());
        CHECK(l.peer.receive().starts_with("SIP/2.0 100"));
        CHECK(t->respond(answer(*t, 408)).has_value());
        CHECK(l.transactions.server_count() == 0);
        l.loop.drain(5ms);
        CHECK(!l.peer.try_receive());
    }

    TEST_CASE("a request that nobody answers ends: silently, or with 500 for an INVITE that nobody holds any more") {
        Layer l;
        auto held = l.receive({});
        l.receive({.method = "INVITE", .branch = "z9hG4bKinvite"});
        l.requests.clear();
        const std::string gone = l.receive_until("SIP/2.0 500");
        CHECK(gone.find("CSeq: 7 INVITE") != std::string::npos);
        CHECK(l.loop.until([&] { return l.transactions.server_count() == 0; }));
        CHECK(held->respond(answer(*held, 200)).error().reaction == Reaction::refused);
    }

    TEST_CASE("a handler that throws leads to 500") {
        Layer l;
        l.transactions.on_request(
            [](const std::shared_ptr<ServerTransaction>&) { throw std::runtime_error("our own fault"); });
        l.peer.send(request_text({}), l.local);
        CHECK(l.peer.receive().starts_with("SIP/2.0 500"));
    }

    TEST_CASE(
        "at the limit new requests get 503 with Retry-After, retransmissions are still absorbed, and the 503's ACK too") {
        Layer l(kPatient, {.server_transactions = 1});
        const auto t = l.receive({});
        l.peer.send(request_text({.method = "INVITE", .branch = "z9hG4bKmore"}), l.local);
        const std::string refusal = l.peer.receive();
        CHECK(refusal.starts_with("SIP/2.0 503"));
        CHECK(refusal.find("Retry-After: ") != std::string::npos);
        CHECK(l.transactions.counters().refused_limit == 1);
        const auto tag_at = refusal.find("tag=", refusal.find("\r\nTo:")) + 4;
        const std::string tag = refusal.substr(tag_at, refusal.find("\r\n", tag_at) - tag_at);
        l.peer.send(request_text({.method = "ACK", .branch = "z9hG4bKmore", .to_tag = tag}), l.local);
        l.peer.send(request_text({}), l.local);
        REQUIRE(l.loop.until([&] { return l.transactions.counters().retransmissions_in == 1; }));
        CHECK(l.strays.empty());
        CHECK(t->respond(answer(*t, 408)).has_value());
    }

    TEST_CASE("C-45: a message that the screen refuses does not reach the transactions") {
        Layer l;
        bool open = false;
        int screened = 0;
        l.transactions.set_screen([&](const Message&, const Flow&) { return ++screened, open; });
        l.peer.send(request_text({}), l.local);
        REQUIRE(l.loop.until([&] { return screened == 1; }));
        CHECK(l.transactions.server_count() == 0);
        open = true;
        const auto t = l.receive({});
        open = false;
        l.peer.send(request_text({}), l.local);
        REQUIRE(l.loop.until([&] { return screened == 3; }));
        CHECK(l.transactions.counters().retransmissions_in == 0);
        CHECK(t->respond(answer(*t, 200)).has_value());
    }

    TEST_CASE("over TCP nothing lingers: the transaction ends with its final response or its ACK") {
        Layer l;
        Peer stream = Peer::tcp(l.loop, l.local);
        stream.send(request_text({.transport = "TCP"}));
        REQUIRE(l.loop.until([&] { return l.requests.size() == 1; }));
        CHECK(l.requests[0]->respond(answer(*l.requests[0], 200)).has_value());
        CHECK(l.transactions.server_count() == 0);
        CHECK(stream.receive().starts_with("SIP/2.0 200"));
        stream.send(request_text({.method = "INVITE", .transport = "TCP"}));
        REQUIRE(l.loop.until([&] { return l.requests.size() == 2; }));
        CHECK(l.requests[1]->respond(answer(*l.requests[1], 404)).has_value());
        CHECK(stream.receive().starts_with("SIP/2.0 404"));
        stream.send(request_text({.method = "ACK", .transport = "TCP", .to_tag = "g1"}));
        CHECK(l.loop.until([&] { return l.transactions.server_count() == 0; }));
        CHECK(l.transactions.counters().retransmissions_out == 0);
    }

    TEST_CASE("a response whose connection is gone is an error, and another way may be tried") {
        Layer l;
        Peer stream = Peer::tcp(l.loop, l.local);
        stream.send(request_text({.transport = "TCP"}));
        REQUIRE(l.loop.until([&] { return l.requests.size() == 1; }));
        const auto t = l.requests[0];
        stream.reset();  // an orderly end says only that the peer sends nothing more
        REQUIRE(l.loop.until([&] { return l.transports.connection_count() == 0; }));
        CHECK(t->respond(answer(*t, 200)).error().reaction == Reaction::broken);
        CHECK(!t->is_completed());
        t->set_reply_flow(l.to_peer());
        CHECK(t->respond(answer(*t, 200)).has_value());
        CHECK(l.peer.receive().starts_with("SIP/2.0 200"));
    }
}

TEST_SUITE("client transactions") {
    TEST_CASE("a request is retransmitted until the final response; the response's retransmissions are absorbed") {
        Layer l;
        const std::string request = l.send("OPTIONS", l.to_peer());
        CHECK(l.peer.receive() == request);
        l.respond(request, 100);
        l.respond(request, 200);
        CHECK(l.next_status() == 200);
        l.respond(request, 200);
        REQUIRE(l.loop.until([&] {
            return l.transactions.counters().retransmissions_in == 1 || l.transactions.counters().stray_responses == 1;
        }));
        CHECK(l.loop.until([&] { return l.transactions.client_count() == 0; }));
        CHECK(l.transactions.counters().timeouts == 0);
    }

    TEST_CASE("Timer F: without a response the transaction ends with a timeout after 64·T1") {
        Layer l;
        const auto begin = std::chrono::steady_clock::now();
        l.send("OPTIONS", l.to_peer());
        const auto outcome = l.next();
        REQUIRE(!outcome.has_value());
        CHECK(outcome.error().reaction == Reaction::retry);
        CHECK(outcome.error().text == "timeout");
        CHECK(std::chrono::steady_clock::now() - begin >= 320ms);
        CHECK(l.transactions.counters().timeouts == 1);
        CHECK(l.transactions.counters().retransmissions_out >= 5);
        CHECK(l.transactions.client_count() == 0);
    }

    TEST_CASE("Timer F also ends a request that got provisional responses only; Timer B an INVITE that got none") {
        Layer l;
        const std::string request = l.send("OPTIONS", l.to_peer());
        l.respond(request, 100);
        CHECK(l.next().error().reaction == Reaction::retry);
        l.send("INVITE", l.to_peer());
        CHECK(l.next().error().reaction == Reaction::retry);
        CHECK(l.transactions.counters().timeouts == 2);
    }

    TEST_CASE("INVITE: provisional responses in order, then every 2xx; it may ring longer than 64·T1") {
        Layer l;
        const std::string request = l.send("INVITE", l.to_peer());
        l.respond(request, 100);
        l.respond(request, 180);
        l.respond(request, 183);
        CHECK(l.next_status() == 180);
        CHECK(l.next_status() == 183);
        l.loop.drain(400ms);
        l.respond(request, 200, "b1");
        CHECK(l.next_status() == 200);
        l.respond(request, 200, "b2");
        auto fork = l.next();
        REQUIRE(fork.has_value());
        CHECK((*fork)->value(HeaderId::to).find("b2") != std::string_view::npos);
        CHECK(l.next().error().reaction == Reaction::broken);  // Timer M
        l.respond(request, 200, "b1");
        CHECK(l.loop.until([&] { return l.strays.size() == 1; }));
        while (const auto bytes = l.peer.try_receive()) CHECK(bytes->starts_with("INVITE "));
    }

    TEST_CASE(
        "INVITE: a non-2xx final response is acknowledged by the layer, again for each retransmission, even without its handle") {
        Layer l;
        const std::string request = l.send("INVITE", l.to_peer());
        l.respond(request, 486);
        CHECK(l.next_status() == 486);
        l.client.reset();
        const std::string ack = l.receive_until("ACK ");
        const auto sent = OwnedMessage::parse(request), parsed = OwnedMessage::parse(ack);
        REQUIRE(parsed.has_value());
        for (const HeaderId id : {HeaderId::via, HeaderId::route, HeaderId::from, HeaderId::call_id})
            CHECK((*parsed)->value(id) == (*sent)->value(id));
        CHECK((*parsed)->request_uri() == (*sent)->request_uri());
        CHECK((*parsed)->value(HeaderId::cseq) == "7 ACK");
        CHECK((*parsed)->value(HeaderId::to).find("tag=b1") != std::string_view::npos);
        l.respond(request, 486);
        CHECK(l.receive_until("ACK ") == ack);
        CHECK(l.loop.until([&] { return l.transactions.client_count() == 0; }));
        CHECK(l.strays.empty());
    }

    TEST_CASE("CANCEL waits for a provisional response, is a transaction of its own, and the 487 is seen through") {
        Layer l;
        const std::string request = l.send("INVITE", l.to_peer());
        l.client->cancel();
        l.client.reset();
        CHECK(l.transactions.client_count() == 1);
        l.respond(request, 180);
        const std::string cancel = l.receive_until("CANCEL ");
        const auto sent = OwnedMessage::parse(request), parsed = OwnedMessage::parse(cancel);
        CHECK((*parsed)->value(HeaderId::via) == (*sent)->value(HeaderId::via));
        CHECK((*parsed)->value(HeaderId::route) == (*sent)->value(HeaderId::route));
        CHECK((*parsed)->value(HeaderId::cseq) == "7 CANCEL");
        CHECK((*parsed)->value(HeaderId::to) == (*sent)->value(HeaderId::to));
        CHECK(l.receive_until("CANCEL ") == cancel);
        l.respond(cancel, 200);
        l.respond(request, 487);
        l.receive_until("ACK ");
        CHECK(l.loop.until([&] { return l.transactions.client_count() == 0; }));
        CHECK(l.strays.empty());
    }

    TEST_CASE("CANCEL without a final response ends the INVITE after 64·T1 (RFC 3261 §9.1)") {
        Layer l;
        const std::string request = l.send("INVITE", l.to_peer());
        l.respond(request, 180);
        CHECK(l.next_status() == 180);
        l.client->cancel();
        CHECK(l.next().error().reaction == Reaction::retry);
        CHECK(l.loop.until([&] { return l.transactions.client_count() == 0; }));
    }

    TEST_CASE("destroying the handle forgets the transaction: late responses are strays") {
        Layer l(kPatient);
        const std::string request = l.send("OPTIONS", l.to_peer());
        l.client.reset();
        CHECK(l.transactions.client_count() == 0);
        l.respond(request, 200);
        REQUIRE(l.loop.until([&] { return l.strays.size() == 1; }));
        CHECK(l.strays[0] == "SIP/2.0 200 Text");
        CHECK(l.transactions.counters().stray_responses == 1);
    }

    TEST_CASE("a response with the right branch but another method is a stray") {
        Layer l(kPatient);
        std::string request = l.send("OPTIONS", l.to_peer());
        std::string other = response_text(request, 200);
        other.replace(other.find("7 OPTIONS"), 9, "7 MESSAGE");
        l.peer.send(other, l.local);
        REQUIRE(l.loop.until([&] { return l.strays.size() == 1; }));
        l.client.reset();
    }

    TEST_CASE("what cannot be sent says so at next(): no socket, no branch, ACK, the limit") {
        Layer l(kPatient, {.client_transactions = 1});
        Flow nowhere = l.to_peer();
        nowhere.local.port = Port(1);
        l.send("OPTIONS", l.to_peer());
        const auto failed = [&](const RequestText& r, const Flow& flow) {
            auto t = l.transactions.send(request_text(r), flow);
            return l.loop.get(t->next()).error().reaction;
        };
        CHECK(failed({}, l.to_peer()) == Reaction::exhausted);
        CHECK(l.transactions.counters().refused_limit == 1);
        l.client.reset();
        CHECK(failed({}, nowhere) == Reaction::broken);
        CHECK(failed({.branch = ""}, l.to_peer()) == Reaction::internal);
        CHECK(failed({.method = "ACK"}, l.to_peer()) == Reaction::internal);
        CHECK(l.transactions.client_count() == 0);
    }

    TEST_CASE("Timer K: with half of the table in use, who has his answer does not wait for copies of it") {
        Layer l(kPatient, {.client_transactions = 2});
        const std::string first = l.send("OPTIONS", l.to_peer());
        const auto waits = std::move(l.client);
        for (int i = 0; i < 3; ++i) {  // more than fit if they stayed
            const std::string request = l.send("MESSAGE", l.to_peer());
            CHECK(request.starts_with("MESSAGE "));
            l.respond(request, 200);
            CHECK(l.next_status() == 200);
            CHECK(l.transactions.client_count() == 1);
            l.respond(request, 200);
            CHECK(l.loop.until([&] { return l.strays.size() == static_cast<std::size_t>(i) + 1; }));
        }
        l.respond(first, 200);
        CHECK((*l.loop.get(waits->next()))->status() == 200);
        CHECK(l.transactions.counters().refused_limit == 0);
    }

    TEST_CASE("a connection that ends before any response breaks the transaction; over TCP nothing is retransmitted") {
        Layer l;
        const auto listener = open_listening_socket({loopback(Family::v4), Port(0)});
        const auto flow = l.loop.get(l.transports.connect_tcp(l.local, local_endpoint_of(listener->get()), 1s));
        REQUIRE(flow.has_value());
        Peer stream = Peer::accept(l.loop, *listener);
        l.send("OPTIONS", *flow);
        const std::string request = stream.receive();
        l.loop.drain(30ms);
        CHECK(!stream.try_receive());
        stream.send(response_text(request, 200));
        CHECK(l.next_status() == 200);
        CHECK(l.transactions.client_count() == 0);
        l.send("MESSAGE", *flow);
        stream.receive();
        stream.reset();
        const auto outcome = l.next();
        REQUIRE(!outcome.has_value());
        CHECK(outcome.error().reaction == Reaction::broken);
    }

    TEST_CASE("branches are unpredictable and carry the magic cookie") {
        CHECK(Transactions::new_branch().starts_with("z9hG4bK"));
        CHECK(Transactions::new_branch().size() >= 7 + 32);
        CHECK(Transactions::new_branch() != Transactions::new_branch());
    }
}

TEST_CASE("destroying the layer while next() waits ends the wait, and handles that outlive it are harmless") {
    Loop loop;
    Transports transports(loop.io.get_executor(), {});
    const Endpoint local = free_endpoint(Family::v4);
    REQUIRE(transports.listen(local, {}).has_value());
    Peer peer = Peer::udp(loop, Family::v4);
    std::unique_ptr<ClientTransaction> client;
    std::shared_ptr<ServerTransaction> server;
    std::optional<Reaction> reaction;
    {
        Transactions transactions(loop.io.get_executor(), transports, {}, [](const Flow&) { return kFast; });
        transactions.on_request([&](std::shared_ptr<ServerTransaction> t) { server = std::move(t); });
        peer.send(request_text({}), local);
        client = transactions.send(request_text({}), {Transport::udp, local, peer.endpoint(), {}, {}});
        loop.start(client->next(), [&](const Result<OwnedMessage>& r) { reaction = r.error().reaction; });
        REQUIRE(loop.until([&] { return server != nullptr; }));
    }
    CHECK(loop.until([&] { return reaction.has_value(); }));
    CHECK(reaction == Reaction::broken);
    CHECK(server->respond(answer(*server, 200)).error().reaction == Reaction::refused);
}

TEST_CASE("many transactions at once leave nothing behind") {
    Layer l;
    l.transactions.on_request([](const std::shared_ptr<ServerTransaction>& t) {
        (void)t->respond(answer(*t, t->request().method() == Method::invite ? 486 : 200));
    });
    for (int i = 0; i < 300; ++i)
        l.peer.send(
            request_text({.method = i % 3 == 0 ? "INVITE" : "MESSAGE", .branch = "z9hG4bK" + std::to_string(i)}),
            l.local);
    std::vector<std::unique_ptr<ClientTransaction>> clients;
    int ended = 0;
    for (int i = 0; i < 300; ++i) {
        clients.push_back(l.transactions.send(
            request_text({.method = i % 2 == 0 ? "INVITE" : "OPTIONS", .branch = Transactions::new_branch()}),
            l.to_peer()));
        l.loop.start(clients.back()->next(), [&](const Result<OwnedMessage>&) { ++ended; });
    }
    CHECK(l.transactions.client_count() == 300);
    REQUIRE(l.loop.until([&] { return ended == 300; }));
    clients.clear();
    CHECK(l.loop.until([&] { return l.transactions.server_count() == 0 && l.transactions.client_count() == 0; }));
    CHECK(l.transactions.counters().timeouts >= 300);
}
