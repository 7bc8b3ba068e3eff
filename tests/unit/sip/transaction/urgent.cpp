// The transaction table nearly full: what is urgent still gets in; shedding; a request given up before Timer F.
#include "sip/message/edit.h"
#include "tests/unit/sip/transport/net_support.h"

using namespace gmgate;
using namespace gmgate::sip;
using namespace gmgate::sip::test;

namespace {

struct Table {
    Loop loop;
    Peer peer;
    Endpoint local;
    Transports transports{loop.io.get_executor(), {}};
    Transactions transactions;
    std::vector<std::shared_ptr<ServerTransaction>> held;

    explicit Table(TransactionLimits limits = {4, 4, 2}, Family family = Family::v4)
        : peer(Peer::udp(loop, family)),
          local(free_endpoint(family)),
          transactions(loop.io.get_executor(), transports, limits, [](const Flow&) { return kCoreTimers; }) {
        REQUIRE(transports.listen(local, {}).has_value());
        transactions.on_request(
            [this](std::shared_ptr<ServerTransaction> transaction) { held.push_back(std::move(transaction)); });
        transactions.set_urgent([](const Message& request, const Flow&) { return request.method() == Method::invite; });
    }
    ~Table() { transports.shutdown(); }
    void ask(std::string method, std::string branch) {
        RequestText text;
        text.method = std::move(method);
        text.branch = std::move(branch);
        peer.send(request_text(text), local);
    }
};

}  // namespace

TEST_CASE("C-83: the reserve of the table is for urgent requests; beyond it they are refused, too") {
    Table table;
    table.ask("OPTIONS", "z9hG4bK1");
    table.ask("OPTIONS", "z9hG4bK2");
    CHECK(table.loop.until([&] { return table.held.size() == 2; }));
    table.ask("OPTIONS", "z9hG4bK3");
    CHECK(table.peer.receive().starts_with("SIP/2.0 503"));
    table.ask("INVITE", "z9hG4bK4");
    table.ask("INVITE", "z9hG4bK5");
    CHECK(table.loop.until([&] { return table.held.size() == 4; }));
    table.ask("INVITE", "z9hG4bK6");
    while (!table.peer.receive().starts_with("SIP/2.0 503")) {}  // past the automatic 100s
    CHECK(table.transactions.server_count() == 4);
    CHECK(table.transactions.counters().refused_limit == 2);
}

TEST_CASE("the reserve holds for requests of our own, too") {
    Table table;
    Flow flow;
    flow.local = table.local;
    flow.remote = table.peer.endpoint();
    std::vector<std::unique_ptr<ClientTransaction>> sent;
    const auto send = [&](bool is_urgent) {
        RequestText text;
        text.branch = Transactions::new_branch();
        SendOptions options;
        options.is_urgent = is_urgent;
        sent.push_back(table.transactions.send(request_text(text), flow, options));
        return table.transactions.client_count();
    };
    CHECK(send(false) == 1);
    CHECK(send(false) == 2);
    CHECK(send(false) == 2);  // refused
    CHECK(send(true) == 3);
    CHECK(send(true) == 4);
    CHECK(send(true) == 4);
    CHECK(table.transactions.counters().refused_limit == 2);
}

TEST_CASE("shedding refuses new requests with Retry-After and counts them; retransmissions of known ones pass") {
    Table table;
    table.ask("OPTIONS", "z9hG4bK1");
    CHECK(table.loop.until([&] { return table.held.size() == 1; }));
    table.transactions.set_shed([](const Message&, const Flow&) { return true; });
    table.ask("OPTIONS", "z9hG4bK2");
    const std::string answer = table.peer.receive();
    CHECK(answer.starts_with("SIP/2.0 503"));
    CHECK(answer.find("Retry-After: ") != std::string::npos);
    table.ask("OPTIONS", "z9hG4bK1");
    CHECK(table.loop.until([&] { return table.transactions.counters().retransmissions_in == 1; }));
    CHECK(table.transactions.counters().shed == 1);
}

TEST_CASE("patience ends a request that gets no answer before Timer F would; an answer ends the patience") {
    Table table;
    Flow flow;
    flow.local = table.local;
    flow.remote = table.peer.endpoint();
    RequestText text;
    text.method = "INVITE";
    text.branch = Transactions::new_branch();
    SendOptions options;
    options.patience = std::chrono::seconds{1};
    const auto silent = table.transactions.send(request_text(text), flow, options);
    const auto outcome = table.loop.get(silent->next());
    REQUIRE_FALSE(outcome.has_value());
    CHECK(outcome.error().reaction == Reaction::retry);

    text.branch = Transactions::new_branch();
    const auto ringing = table.transactions.send(request_text(text), flow, options);
    std::string got = table.peer.receive();
    while (got.find(text.branch) == std::string::npos) got = table.peer.receive();
    table.peer.send(response_text(got, 180), table.local);
    CHECK((*table.loop.get(ringing->next()))->status() == 180);
    table.loop.drain(std::chrono::milliseconds{1200});  // longer than the patience
    table.peer.send(response_text(got, 486), table.local);
    CHECK((*table.loop.get(ringing->next()))->status() == 486);
}

TEST_CASE("strangers have a part of the table and each source a part of that; whoever is known has the rest") {
    for (const Family family : {Family::v4, Family::v6}) {
        Table table({.server_transactions = 7,
                     .client_transactions = 7,
                     .urgent_reserve = 1,
                     .strangers = 3,
                     .waiting_per_source = 2},
                    family);
        Peer known = Peer::udp(table.loop, family);
        table.transactions.set_doors([&](const Flow& flow, Direction) {
            Door door = door_of_ends(flow);
            if (flow.remote == known.endpoint()) door.owner = OwnerId{7};
            return door;
        });
        table.ask("OPTIONS", "z9hG4bK1");
        table.ask("OPTIONS", "z9hG4bK2");
        CHECK(table.loop.until([&] { return table.held.size() == 2; }));
        table.ask("OPTIONS", "z9hG4bK3");
        CHECK(table.peer.receive().starts_with("SIP/2.0 503"));  // two of this source wait
        CHECK(table.transactions.counters().refused_limit == 1);
        (void)table.held[0]->respond(make_response(table.held[0]->request(), 200, "OK", "t"));
        CHECK(table.peer.receive().starts_with("SIP/2.0 200"));
        table.ask("OPTIONS", "z9hG4bK4");  // one has its answer
        CHECK(table.loop.until([&] { return table.held.size() == 3; }));
        (void)table.held[1]->respond(make_response(table.held[1]->request(), 200, "OK", "t"));
        CHECK(table.peer.receive().starts_with("SIP/2.0 200"));
        table.ask("OPTIONS", "z9hG4bK5");
        CHECK(table.peer.receive().starts_with("SIP/2.0 503"));  // three of all strangers, answered or not
        table.ask("INVITE", "z9hG4bK6");                         // urgent
        CHECK(table.loop.until([&] { return table.held.size() == 4; }));
        table.ask("INVITE", "z9hG4bKmore");  // the reserve is used up; what is left is for those who are known
        while (!table.peer.receive().starts_with("SIP/2.0 503")) {}
        for (int i = 0; i < 2; ++i) {
            RequestText text;
            text.branch = "z9hG4bKknown" + std::to_string(i);
            known.send(request_text(text), table.local);
        }
        CHECK(table.loop.until([&] { return table.held.size() == 6; }));
        table.held[1]->forget();  // and makes room
        table.held[0]->forget();
        CHECK(table.transactions.server_count() == 4);
        (void)table.held[3]->respond(make_response(table.held[3]->request(), 486, "Busy Here", "t"));
        table.held[3]->forget();
        table.ask("OPTIONS", "z9hG4bK7");
        CHECK(table.loop.until([&] { return table.held.size() == 7; }));
    }
}

TEST_CASE("RFC 3261 §18.2.2: what is refused in clear is told where Via says, with rport where it came from") {
    for (const Family family : {Family::v4, Family::v6}) {
        Table table({.server_transactions = 0}, family);
        table.transports.set_reply_route([](const Flow& flow) { return std::optional(flow); });  // a gateway, in clear
        Peer listening = Peer::udp(table.loop, family);
        RequestText text;
        text.sent_by = listening.endpoint().to_string();
        table.peer.send(request_text(text), table.local);
        CHECK(listening.receive().starts_with("SIP/2.0 503"));
        text.method = "CANCEL";
        table.peer.send(request_text(text), table.local);
        CHECK(listening.receive().starts_with("SIP/2.0 481"));
        text.method = "OPTIONS";
        std::string bad = request_text(text);
        bad.replace(bad.find("CSeq: 7 OPTIONS"), 15, "CSeq: 7 INVITE ");
        table.peer.send(bad, table.local);
        CHECK(listening.receive().starts_with("SIP/2.0 400"));
        bad.insert(bad.find(";branch"), ";rport");
        table.peer.send(bad, table.local);
        CHECK(table.peer.receive().starts_with("SIP/2.0 400"));
        text.sent_by += ";rport";
        table.peer.send(request_text(text), table.local);
        CHECK(table.peer.receive().starts_with("SIP/2.0 503"));
        CHECK_FALSE(listening.try_receive().has_value());
    }
}
