// The router on real sockets of the loopback: a phone with one set of SAs (the mark that the kernel would report is put on by the test),
// the gateway's transports and transactions, and a core. No kernel SAs: who owns a flow is all that the router knows of them.
#include <memory>

#include <fmt/format.h>

#include "daemon/proxy/router.h"
#include "sip/spawn.h"
#include "tests/unit/daemon_proxy_support.h"
#include "tests/unit/sip_net_support.h"

using namespace gmgate;
using namespace gmgate::daemon;
using namespace gmgate::daemon::test;
using gmgate::sip::test::Loop;
using gmgate::sip::test::Peer;
using gmgate::sip::test::response_text;

namespace {

/// A server transaction whose flow has the mark of an inbound SA.
class Marked : public sip::ServerTransaction {
public:
    Marked(std::shared_ptr<sip::ServerTransaction> inner, Mark mark) : inner_(std::move(inner)), flow_(inner_->flow()) { flow_.mark = mark; }
    const sip::Message& request() const override { return inner_->request(); }
    const sip::Flow& flow() const override { return flow_; }
    void set_reply_flow(const sip::Flow& flow) override { inner_->set_reply_flow(flow); }
    const sip::Flow& reply_flow() const override { return inner_->reply_flow(); }
    Result<void> respond(std::string response) override { return inner_->respond(std::move(response)); }
    bool is_completed() const override { return inner_->is_completed(); }
    void on_cancel(std::function<void()> handler) override { inner_->on_cancel(std::move(handler)); }

private:
    std::shared_ptr<sip::ServerTransaction> inner_;
    sip::Flow flow_;
};

constexpr std::uint32_t kSet = 77;

struct Network {
    Loop loop;
    Peer ue_client = Peer::udp(loop, Family::v4), ue_server = Peer::udp(loop, Family::v4), core_peer = Peer::udp(loop, Family::v4);
    Endpoint ps = sip::test::free_endpoint(Family::v4), pc = sip::test::free_endpoint(Family::v4), core_side = sip::test::free_endpoint(Family::v4);
    Config config = make_config();
    sip::Transports transports{loop.io.get_executor(), {}};
    sip::Transactions transactions{loop.io.get_executor(), transports, {}, [](const sip::Flow&) { return sip::kCoreTimers; }};
    Table table;
    Counters counters;
    CoreLink link{config.core, transports, transactions};
    Router router{loop.io.get_executor(), config, table, link, transports, transactions, counters};
    ContactKey key{Impi("alice_private@home.example"), "", ""};
    std::uint32_t mark = kSet;

    Network() {
        for (const Endpoint& local : {ps, pc, core_side}) REQUIRE(transports.listen(local, {}).has_value());
        transactions.on_request([this](std::shared_ptr<sip::ServerTransaction> transaction) {
            const bool from_core = transaction->flow().local == core_side;
            auto marked = std::make_shared<Marked>(std::move(transaction), Mark{from_core ? 0 : mark});
            sip::spawn(loop.io.get_executor(), from_core ? router.from_core(marked) : router.from_ue(marked), "test");
        });
        transactions.on_stray([this](sip::OwnedMessage message, sip::Flow flow) {
            if (flow.local != core_side) flow.mark = Mark{mark};
            router.stray(std::move(message), flow);
        });
        auto set = std::make_unique<SaSet>();
        set->number = SetNumber{kSet};
        set->state = SetState::established;
        set->in_use = true;
        set->parameters.ue = set->parameters.gateway = sip::test::loopback(Family::v4);
        set->parameters.port_uc = ue_client.endpoint().port;
        set->parameters.port_us = ue_server.endpoint().port;
        set->parameters.port_pc = pc.port;
        set->parameters.port_ps = ps.port;
        auto registration = std::make_unique<Registration>();
        registration->key = key;
        registration->token = "tok1";
        registration->impus = {Impu("sip:alice@home.example")};
        registration->service_route = {"<sip:orig@scscf.home.example;lr>"};
        registration->realm_id = "access";
        registration->sets.push_back(std::move(set));
        table.add(std::move(registration));
    }
    ~Network() { transports.shutdown(); }

    Config make_config() const {
        Config c;
        c.core.listen = core_side;
        c.core.next_hop = core_peer.endpoint();
        c.core.visited_network_id = "visited.example";
        SipInterface interface;
        interface.realm_id = "access";
        SipPort port;
        port.address = ps.address;
        port.ims_aka_profile = "p";
        interface.sip_ports.push_back(port);
        c.sip_interfaces.push_back(interface);
        ImsAkaProfile profile;
        profile.name = "p";
        profile.protected_server_ports = {ps.port};
        profile.start_protected_client_port = profile.end_protected_client_port = pc.port;
        c.ims_aka_profiles.push_back(profile);
        return c;
    }

    std::string from_ue(std::string_view method, std::string_view uri, std::string_view lines = "", std::string_view branch = "z9hG4bKue1") const {
        return request(method, uri, lines, branch, ue_server.endpoint());
    }
    std::string from_core(std::string_view method, std::string_view lines, std::string_view branch = "z9hG4bKcore1") const {
        return request(method, "sip:alice@192.0.2.7:1357", lines, branch, core_peer.endpoint());
    }
    static std::string request(std::string_view method, std::string_view uri, std::string_view lines, std::string_view branch, const Endpoint& sent_by) {
        const bool in_dialog = lines.find("X-In-Dialog") != std::string_view::npos;
        return crlf(fmt::format("{0} {1} SIP/2.0\nVia: SIP/2.0/UDP {2};branch={3}\nMax-Forwards: 70\nFrom: <sip:a@home.example>;tag=a1\n"
                                "To: <sip:b@home.example>{4}\nCall-ID: c1\nCSeq: 7 {0}\n{5}Content-Length: 0\n\n",
                                method, uri, sent_by.to_string(), branch, in_dialog ? ";tag=b1" : "", lines));
    }
    std::string our_route() const { return "Route: <sip:tok1@" + core_side.to_string() + ";lr>\n"; }
    /// Skips a 100 Trying.
    static std::string final_of(Peer& peer) {
        for (;;) {
            std::string text = peer.receive();
            if (text.empty() || !text.starts_with("SIP/2.0 100")) return text;
        }
    }
};

std::optional<Endpoint> peer_of(int fd) {
    sockaddr_storage address{};
    socklen_t length = sizeof address;
    REQUIRE(::getpeername(fd, reinterpret_cast<sockaddr*>(&address), &length) == 0);
    return Endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&address));
}

std::string first_line(const std::string& text) { return text.substr(0, text.find("\r\n")); }

std::string header(const std::string& text, std::string_view name) {
    const std::size_t at = text.find("\r\n" + std::string(name) + ": ");
    if (at == std::string::npos) return {};
    const std::size_t begin = at + name.size() + 4;
    return text.substr(begin, text.find("\r\n", begin) - begin);
}

}  // namespace

TEST_CASE("B-15, C-60…C-63: a MESSAGE over the SAs reaches the core, and the answer goes from port_pc to port_us") {
    Network net;
    net.ue_client.send(net.from_ue("MESSAGE", "sip:bob@home.example",
                                   "Route: <sip:" + net.ps.to_string() + ";lr>, <sip:orig@scscf.home.example;lr>\nProxy-Require: sec-agree\n"), net.ps);
    const std::string got = net.core_peer.receive();
    CHECK(first_line(got) == "MESSAGE sip:bob@home.example SIP/2.0");
    CHECK(header(got, "Via").starts_with("SIP/2.0/UDP " + net.core_side.to_string() + ";branch=z9hG4bK"));
    CHECK(header(got, "Route") == "<sip:orig@scscf.home.example;lr>");
    CHECK(header(got, "P-Asserted-Identity") == "<sip:alice@home.example>");
    CHECK(header(got, "Record-Route").empty());
    CHECK_FALSE(contains(got, "sec-agree"));

    net.core_peer.send(response_text(got, 200), net.core_side);
    const std::string answer = net.ue_server.receive();  // not ue_client: a strict phone drops what comes there
    CHECK(first_line(answer) == "SIP/2.0 200 Text");
    CHECK(header(answer, "Via").starts_with("SIP/2.0/UDP " + net.ue_server.endpoint().to_string()));
    CHECK_FALSE(net.ue_client.try_receive().has_value());
    CHECK(net.counters.get(Counter::requests_from_ue) == 1);
}

TEST_CASE("C-60: a Route that is not the Service-Route is replaced and counted") {
    Network net;
    net.ue_client.send(net.from_ue("MESSAGE", "sip:bob@home.example", "Route: <sip:evil.example;lr>\n"), net.ps);
    CHECK(header(net.core_peer.receive(), "Route") == "<sip:orig@scscf.home.example;lr>");
    CHECK(net.counters.get(Counter::route_replaced) == 1);
}

TEST_CASE("B-23: a request over no set of a registration is dropped, not answered") {
    Network net;
    net.mark = 0;
    net.ue_client.send(net.from_ue("MESSAGE", "sip:bob@home.example"), net.ps);
    CHECK(net.loop.until([&] { return net.counters.get(Counter::wrong_sa) == 1; }));
    CHECK_FALSE(net.core_peer.try_receive().has_value());
    CHECK_FALSE(net.ue_server.try_receive().has_value());
}

TEST_CASE("an INVITE call from the phone: 100 at once, ringing, 200 and its copy, ACK by Route, BYE from the core") {
    Network net;
    net.ue_client.send(net.from_ue("INVITE", "sip:bob@home.example"), net.ps);
    CHECK(first_line(net.ue_server.receive()) == "SIP/2.0 100 Trying");
    const std::string invite = net.core_peer.receive();
    const std::string pair = "<sip:tok1@" + net.core_side.to_string() + ";lr>, <sip:tok1@" + net.ps.to_string() + ";lr>";
    CHECK(header(invite, "Record-Route") == pair);

    net.core_peer.send(response_text(invite, 180), net.core_side);
    CHECK(first_line(net.ue_server.receive()) == "SIP/2.0 180 Text");
    net.core_peer.send(response_text(invite, 200), net.core_side);
    CHECK(first_line(net.ue_server.receive()) == "SIP/2.0 200 Text");
    net.core_peer.send(response_text(invite, 200), net.core_side);  // the callee has seen no ACK yet
    CHECK(first_line(net.ue_server.receive()) == "SIP/2.0 200 Text");

    const std::string ue_routes = "X-In-Dialog: 1\nRoute: <sip:tok1@" + net.ps.to_string() + ";lr>, <sip:tok1@" + net.core_side.to_string() +
                                  ";lr>, <sip:scscf.home.example;lr>\n";
    net.ue_client.send(net.from_ue("ACK", "sip:bob@10.0.0.9", ue_routes, "z9hG4bKack"), net.ps);
    const std::string ack = net.core_peer.receive();
    CHECK(first_line(ack) == "ACK sip:bob@10.0.0.9 SIP/2.0");
    CHECK(header(ack, "Route") == "<sip:scscf.home.example;lr>");

    net.core_peer.send(net.from_core("BYE", "X-In-Dialog: 1\n" + net.our_route() + "Route: <sip:tok1@" + net.ps.to_string() + ";lr>\n"), net.core_side);
    const std::string bye = net.ue_server.receive();
    CHECK(first_line(bye) == "BYE sip:alice@192.0.2.7:1357 SIP/2.0");
    CHECK(header(bye, "Route").empty());
    net.ue_client.send(response_text(bye, 200), net.ps);
    CHECK(first_line(net.core_peer.receive()) == "SIP/2.0 200 Text");
}

TEST_CASE("C-70: an INVITE call to the phone, answered, and the core's ACK finds it by the token") {
    Network net;
    net.core_peer.send(net.from_core("INVITE", net.our_route()), net.core_side);
    CHECK(first_line(net.core_peer.receive()) == "SIP/2.0 100 Trying");
    const std::string invite = net.ue_server.receive();
    CHECK(first_line(invite) == "INVITE sip:alice@192.0.2.7:1357 SIP/2.0");
    CHECK(header(invite, "Via").starts_with("SIP/2.0/UDP " + net.ps.to_string() + ";branch="));  // port_ps, not port_pc
    CHECK(header(invite, "Record-Route") == "<sip:tok1@" + net.ps.to_string() + ";lr>, <sip:tok1@" + net.core_side.to_string() + ";lr>");
    net.ue_client.send(response_text(invite, 180), net.ps);
    CHECK(first_line(net.core_peer.receive()) == "SIP/2.0 180 Text");
    net.ue_client.send(response_text(invite, 200), net.ps);
    const std::string answer = net.core_peer.receive();
    CHECK(first_line(answer) == "SIP/2.0 200 Text");
    CHECK(header(answer, "P-Asserted-Identity") == "<sip:alice@home.example>");
    net.core_peer.send(net.from_core("ACK", "X-In-Dialog: 1\n" + net.our_route(), "z9hG4bKcoreack"), net.core_side);
    CHECK(first_line(net.ue_server.receive()) == "ACK sip:alice@192.0.2.7:1357 SIP/2.0");
}

TEST_CASE("a CANCEL from the phone goes on to the core, and the 487 comes back") {
    Network net;
    net.ue_client.send(net.from_ue("INVITE", "sip:bob@home.example"), net.ps);
    CHECK(first_line(net.ue_server.receive()) == "SIP/2.0 100 Trying");
    const std::string invite = net.core_peer.receive();
    net.core_peer.send(response_text(invite, 180), net.core_side);
    CHECK(first_line(net.ue_server.receive()) == "SIP/2.0 180 Text");
    net.ue_client.send(net.from_ue("CANCEL", "sip:bob@home.example"), net.ps);
    CHECK(first_line(net.ue_server.receive()) == "SIP/2.0 200 OK");
    const std::string cancel = net.core_peer.receive();
    CHECK(first_line(cancel) == "CANCEL sip:bob@home.example SIP/2.0");
    CHECK(header(cancel, "Via") == header(invite, "Via"));
    net.core_peer.send(response_text(cancel, 200), net.core_side);
    net.core_peer.send(response_text(invite, 487), net.core_side);
    CHECK(first_line(net.ue_server.receive()) == "SIP/2.0 487 Text");
    CHECK(first_line(net.core_peer.receive()).starts_with("ACK "));
}

TEST_CASE("C-71, H-8: an unknown token and a phone without a set get 480, who names nobody of ours 404; nothing is sent") {
    Network net;
    net.core_peer.send(net.from_core("MESSAGE", "Route: <sip:other@" + net.core_side.to_string() + ";lr>\n"), net.core_side);
    CHECK(first_line(net.core_peer.receive()) == "SIP/2.0 480 Temporarily Unavailable");
    CHECK(net.counters.get(Counter::not_registered) == 1);
    net.core_peer.send(net.from_core("MESSAGE", "", "z9hG4bKcore0"), net.core_side);
    CHECK(first_line(net.core_peer.receive()) == "SIP/2.0 404 Not Found");

    net.table.take_set(*net.table.find(net.key), SetNumber{kSet});
    net.core_peer.send(net.from_core("MESSAGE", net.our_route(), "z9hG4bKcore2"), net.core_side);
    CHECK(first_line(net.core_peer.receive()) == "SIP/2.0 480 Temporarily Unavailable");
    CHECK(net.counters.get(Counter::no_set) == 1);
    CHECK_FALSE(net.ue_server.try_receive().has_value());
    CHECK_FALSE(net.ue_client.try_receive().has_value());
}

TEST_CASE("H-8: the answer to a request whose set has gone meanwhile is not sent") {
    Network net;
    net.ue_client.send(net.from_ue("MESSAGE", "sip:bob@home.example"), net.ps);
    const std::string got = net.core_peer.receive();
    net.table.take(net.key);
    net.core_peer.send(response_text(got, 200), net.core_side);
    CHECK(net.loop.until([&] { return net.counters.get(Counter::no_set) == 1; }));
    net.loop.drain(std::chrono::milliseconds{20});
    CHECK_FALSE(net.ue_server.try_receive().has_value());
    CHECK_FALSE(net.ue_client.try_receive().has_value());
}

TEST_CASE("OPTIONS of the core to the gateway itself is answered") {
    Network net;
    net.core_peer.send(Network::request("OPTIONS", "sip:" + net.core_side.to_string(), "", "z9hG4bKping", net.core_peer.endpoint()), net.core_side);
    CHECK(first_line(net.core_peer.receive()) == "SIP/2.0 200 OK");
}

TEST_CASE("B-15: to a phone that registered over TCP a request goes from port_pc to port_us over one connection, UDP when it does not answer") {
    Network net;
    net.table.find(net.key)->transport = sip::Transport::tcp;
    SUBCASE("it listens") {
        auto listener = sip::open_listening_socket(net.ue_server.endpoint());
        REQUIRE(listener.has_value());
        net.core_peer.send(net.from_core("MESSAGE", net.our_route()), net.core_side);
        Peer phone = Peer::accept(net.loop, *listener);
        net.core_peer.send(net.from_core("MESSAGE", net.our_route(), "z9hG4bKcore2"), net.core_side);
        std::string both = phone.receive();
        while (both.find("MESSAGE sip:", 1) == std::string::npos) both += phone.receive();  // the second on the same connection
        CHECK(header(both, "Via").starts_with("SIP/2.0/TCP " + net.ps.to_string()));
        CHECK(peer_of(phone.fd()) == net.pc);
    }
    SUBCASE("it refuses the connection") {
        net.core_peer.send(net.from_core("MESSAGE", net.our_route()), net.core_side);
        CHECK(header(net.ue_server.receive(), "Via").starts_with("SIP/2.0/UDP " + net.ps.to_string()));
    }
}

TEST_CASE("B-15: a request on the phone's own connection is answered there") {
    Network net;
    auto set = net.table.take_set(*net.table.find(net.key), SetNumber{kSet});
    Peer phone = Peer::tcp(net.loop, net.ps);
    set->parameters.port_uc = phone.endpoint().port;
    net.table.add_set(*net.table.find(net.key), std::move(set));
    std::string text = net.from_ue("MESSAGE", "sip:bob@home.example");
    phone.send(text.replace(text.find("/UDP"), 4, "/TCP"));
    const std::string got = net.core_peer.receive();
    net.core_peer.send(response_text(got, 200), net.core_side);
    CHECK(first_line(phone.receive()) == "SIP/2.0 200 Text");
}

TEST_CASE("core over TCP: requests that come together share one connection, and a lost one is opened again") {
    Network net;
    net.config.core.transport = CoreTransport::tcp;
    auto listener = sip::open_listening_socket(net.core_peer.endpoint());
    REQUIRE(listener.has_value());
    net.ue_client.send(net.from_ue("MESSAGE", "sip:bob@home.example", "", "z9hG4bKone"), net.ps);
    net.ue_client.send(net.from_ue("MESSAGE", "sip:bob@home.example", "", "z9hG4bKtwo"), net.ps);
    {
        Peer core = Peer::accept(net.loop, *listener);
        std::string both = core.receive();
        while (both.find("MESSAGE sip:", 1) == std::string::npos) both += core.receive();
        CHECK(header(both, "Via").starts_with("SIP/2.0/TCP " + net.core_side.to_string()));
        CHECK(net.transports.connection_count() == 1);
        for (int i = 0; i < 2; ++i) {
            const std::size_t second = both.find("MESSAGE sip:", 1);
            core.send(response_text(both.substr(0, second), 200));
            both.erase(0, second == std::string::npos ? both.size() : second);
            CHECK(first_line(net.ue_server.receive()) == "SIP/2.0 200 Text");
        }
    }
    CHECK(net.loop.until([&] { return net.transports.connection_count() == 0; }));
    net.ue_client.send(net.from_ue("MESSAGE", "sip:bob@home.example", "", "z9hG4bKthree"), net.ps);
    Peer core = Peer::accept(net.loop, *listener);
    CHECK(first_line(core.receive()) == "MESSAGE sip:bob@home.example SIP/2.0");
}

TEST_CASE("RFC 3261 §18.1.1: a request too long for a datagram goes to the core over TCP, and over UDP when TCP is refused") {
    Network net;
    const std::string long_line = "X-Long: " + std::string(1400, 'x') + "\n";
    SUBCASE("the core listens") {
        auto listener = sip::open_listening_socket(net.core_peer.endpoint());
        REQUIRE(listener.has_value());
        net.ue_client.send(net.from_ue("MESSAGE", "sip:bob@home.example", long_line), net.ps);
        Peer core = Peer::accept(net.loop, *listener);
        CHECK(header(core.receive(), "Via").starts_with("SIP/2.0/TCP "));
    }
    SUBCASE("the core refuses") {
        net.ue_client.send(net.from_ue("MESSAGE", "sip:bob@home.example", long_line), net.ps);
        CHECK(header(net.core_peer.receive(), "Via").starts_with("SIP/2.0/UDP "));
    }
}

TEST_CASE("C-66: a core that cannot be reached gives 504 to the phone") {
    Network net;
    net.config.core.transport = CoreTransport::tcp;  // nobody listens
    net.ue_client.send(net.from_ue("MESSAGE", "sip:bob@home.example"), net.ps);
    CHECK(first_line(net.ue_server.receive()) == "SIP/2.0 504 Server Time-out");
    CHECK(net.counters.get(Counter::core_unreachable) == 1);
}

TEST_CASE("a phone's connection that breaks before any answer is replaced by UDP within the transaction") {
    Network net;
    auto set = net.table.take_set(*net.table.find(net.key), SetNumber{kSet});
    Peer phone = Peer::tcp(net.loop, net.ps);
    set->parameters.port_uc = phone.endpoint().port;
    net.table.add_set(*net.table.find(net.key), std::move(set));
    net.table.find(net.key)->transport = sip::Transport::tcp;
    CHECK(net.loop.until([&] { return net.transports.connection_count() == 1; }));
    net.core_peer.send(net.from_core("MESSAGE", net.our_route()), net.core_side);
    CHECK(first_line(phone.receive()).starts_with("MESSAGE "));
    phone.reset();
    const std::string again = net.ue_server.receive();
    CHECK(header(again, "Via").starts_with("SIP/2.0/UDP " + net.ps.to_string()));
    net.ue_client.send(response_text(again, 200), net.ps);
    CHECK(first_line(net.core_peer.receive()) == "SIP/2.0 200 Text");
}

TEST_CASE("C-80, C-84: an emergency call from an unprotected port reaches the core, asserts nobody, and its dialog passes both ways") {
    Network net;
    const Endpoint open_port = sip::test::free_endpoint(Family::v4);
    REQUIRE(net.transports.listen(open_port, {}).has_value());
    SipInterface interface;
    interface.sec_agree_feature = true;
    net.transactions.on_request([&](std::shared_ptr<sip::ServerTransaction> transaction) {
        if (transaction->flow().local == net.core_side) sip::spawn(net.loop.io.get_executor(), net.router.from_core(transaction), "test");
        else sip::spawn(net.loop.io.get_executor(), net.router.unprotected(transaction, interface, "ipsec-3gpp;alg=hmac-sha-1-96"), "test");
    });
    net.mark = 0;
    Peer& phone = net.ue_client;
    const auto text = [&](std::string_view method, std::string_view uri, std::string_view lines, std::string_view branch) {
        return Network::request(method, uri, lines, branch, phone.endpoint());
    };
    phone.send(text("INVITE", "sip:bob@home.example", "Require: sec-agree\n", "z9hG4bKe0"), open_port);
    const std::string refused = phone.receive();
    CHECK(first_line(refused) == "SIP/2.0 494 Security Agreement Required");
    CHECK(header(refused, "Security-Server") == "ipsec-3gpp;alg=hmac-sha-1-96");
    phone.send(text("ACK", "sip:bob@home.example", "X-In-Dialog: 1\n", "z9hG4bKe0"), open_port);

    phone.send(text("INVITE", "urn:service:sos", "P-Asserted-Identity: <sip:x@y>\nRoute: <sip:evil.example;lr>\n", "z9hG4bKe1"), open_port);
    CHECK(first_line(phone.receive()) == "SIP/2.0 100 Trying");
    const std::string invite = net.core_peer.receive();
    CHECK(first_line(invite) == "INVITE urn:service:sos SIP/2.0");
    CHECK(header(invite, "P-Asserted-Identity").empty());
    CHECK(header(invite, "Route").empty());
    net.core_peer.send(response_text(invite, 200), net.core_side);
    CHECK(first_line(phone.receive()) == "SIP/2.0 200 Text");
    phone.send(text("ACK", "sip:psap@10.0.0.9", "X-In-Dialog: 1\n", "z9hG4bKe2"), open_port);
    CHECK(first_line(net.core_peer.receive()) == "ACK sip:psap@10.0.0.9 SIP/2.0");

    const std::string route = header(invite, "Record-Route");
    net.core_peer.send(net.from_core("BYE", "X-In-Dialog: 1\nRoute: " + route + "\n"), net.core_side);
    const std::string bye = phone.receive();
    CHECK(first_line(bye).starts_with("BYE "));
    phone.send(response_text(bye, 200), open_port);
    CHECK(first_line(net.core_peer.receive()) == "SIP/2.0 200 Text");
    CHECK(net.loop.until([&] { return net.router.emergency_dialogs().size() == 0; }));
}
