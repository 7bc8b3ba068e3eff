// The transaction table nearly full: what is urgent still gets in; shedding; a request given up before Timer F.
#include "tests/unit/sip/transport/net_support.h"

using namespace gmgate;
using namespace gmgate::sip;
using namespace gmgate::sip::test;

namespace {

struct Table {
    Loop loop;
    Peer peer = Peer::udp(loop, Family::v4);
    Endpoint local = free_endpoint(Family::v4);
    Transports transports{loop.io.get_executor(), {}};
    Transactions transactions{loop.io.get_executor(), transports, {4, 4, 2}, [](const Flow&) { return kCoreTimers; }};
    std::vector<std::shared_ptr<ServerTransaction>> held;

    Table() {
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
