// The router on real sockets of the loopback: requests in both directions, calls, fail-over, emergency.
#include "tests/unit/daemon/proxy/network.h"

using namespace gmgate;
using namespace gmgate::daemon;
using namespace gmgate::daemon::test;

namespace {

/// "<sip:tok1.o0123…@…": the marks differ from run to run, and what is in them has tests of its own.
std::string without_marks(std::string text) {
    for (std::size_t dot = text.find("tok1."); dot != std::string::npos; dot = text.find("tok1.", dot))
        text.erase(dot + 4, text.find('@', dot) - dot - 4);
    return text;
}

}  // namespace

TEST_CASE(
    "B-15, C-60…C-63, C-65: a MESSAGE over the SAs reaches the core, its Request-URI as it was, and the answer goes from port_pc to port_us") {
    ProxyNetwork net;
    net.ue_client.send(net.from_ue("MESSAGE", "sip:bob@home.example",
                                   "Route: <sip:" + net.ps.to_string() +
                                       ";lr>, <sip:orig@scscf.home.example;lr>\nProxy-Require: sec-agree\n"),
                       net.ps);
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
    ProxyNetwork net;
    net.ue_client.send(net.from_ue("MESSAGE", "sip:bob@home.example", "Route: <sip:evil.example;lr>\n"), net.ps);
    CHECK(header(net.core_peer.receive(), "Route") == "<sip:orig@scscf.home.example;lr>");
    CHECK(net.counters.get(Counter::route_replaced) == 1);
}

TEST_CASE("C-60, C-61: a request goes the Service-Route of the identity that is asserted for it") {
    ProxyNetwork net;
    auto& registration = *net.table.find(net.key);
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds{600};
    registration.identities.push_back({.aor = registration.impus.front(),
                                       .impus = registration.impus,
                                       .service_route = registration.service_route,
                                       .expires = end});
    registration.identities.push_back({.aor = Impu("sip:work@home.example"),
                                       .impus = {Impu("sip:work@home.example")},
                                       .service_route = {"<sip:orig@scscf2.home.example;lr>"},
                                       .expires = end});
    registration.summarise();
    std::string preferred = "sip:work@home.example", asserted = preferred, route = "<sip:orig@scscf2.home.example;lr>";
    SUBCASE("the second") {}
    SUBCASE("one that is not registered: the default one") {
        preferred = "sip:bob@home.example";
        asserted = "sip:alice@home.example";
        route = "<sip:orig@scscf.home.example;lr>";
    }
    net.ue_client.send(net.from_ue("MESSAGE", "sip:bob@home.example",
                                   "Route: <sip:evil.example;lr>\nP-Preferred-Identity: <" + preferred + ">\n"),
                       net.ps);
    const auto message = net.core_peer.receive();
    CHECK(header(message, "Route") == route);
    CHECK(header(message, "P-Asserted-Identity") == "<" + asserted + ">");
}

TEST_CASE("B-23, C-62: a request over no set of a registration is dropped, not answered") {
    ProxyNetwork net;
    net.mark = 0;
    net.ue_client.send(net.from_ue("MESSAGE", "sip:bob@home.example"), net.ps);
    CHECK(net.loop.until([&] { return net.counters.get(Counter::wrong_sa) == 1; }));
    CHECK_FALSE(net.core_peer.try_receive().has_value());
    CHECK_FALSE(net.ue_server.try_receive().has_value());
}

TEST_CASE("an INVITE call from the phone: 100 at once, ringing, 200 and its copy, ACK by Route, BYE from the core") {
    ProxyNetwork net;
    net.ue_client.send(net.from_ue("INVITE", "sip:bob@home.example"), net.ps);
    CHECK(first_line(net.ue_server.receive()) == "SIP/2.0 100 Trying");
    const std::string invite = net.core_peer.receive();
    const std::string pair =
        "<sip:tok1@" + net.core_side.to_string() + ";lr>, <sip:tok1@" + net.ps.to_string() + ";lr>";
    CHECK(without_marks(header(invite, "Record-Route")) == pair);

    net.core_peer.send(response_text(invite, 180), net.core_side);
    CHECK(first_line(net.ue_server.receive()) == "SIP/2.0 180 Text");
    net.core_peer.send(ProxyNetwork::answer_by_way_of("scscf.home.example", invite, 200), net.core_side);
    const std::string answer = net.ue_server.receive();
    CHECK(first_line(answer) == "SIP/2.0 200 Text");
    net.core_peer.send(response_text(invite, 200), net.core_side);  // the callee has seen no ACK yet
    CHECK(first_line(net.ue_server.receive()) == "SIP/2.0 200 Text");

    const std::string ue_routes = ProxyNetwork::dialog_route(answer, ProxyNetwork::End::caller);
    net.ue_client.send(net.from_ue("ACK", "sip:bob@10.0.0.9", ue_routes, "z9hG4bKack"), net.ps);
    const std::string ack = net.core_peer.receive();
    CHECK(first_line(ack) == "ACK sip:bob@10.0.0.9 SIP/2.0");
    CHECK(header(ack, "Route") == "<sip:scscf.home.example;lr>");

    net.core_peer.send(net.from_core("BYE", "X-In-Dialog: 1\n" + net.our_route() + "Route: <sip:tok1@" +
                                                net.ps.to_string() + ";lr>\n"),
                       net.core_side);
    const std::string bye = net.ue_server.receive();
    CHECK(first_line(bye) == "BYE sip:alice@192.0.2.7:1357 SIP/2.0");
    CHECK(header(bye, "Route").empty());
    net.ue_client.send(response_text(bye, 200), net.ps);
    CHECK(first_line(net.core_peer.receive()) == "SIP/2.0 200 Text");
}

TEST_CASE(
    "C-72: a call from the PSTN with an unquoted name and a far Via with port 0 reaches the phone; its 200 tells term-ioi") {
    ProxyNetwork net;
    std::string call = net.from_core(
        "INVITE",
        "Via: SIP/2.0/UDP pstn.example:0;branch=z9hG4bKfar\n"
        "P-Charging-Vector: icid-value=x;orig-ioi=home.example\nP-Access-Network-Info: 3GPP-E-UTRAN;cell=1\n" +
            net.our_route());
    const auto at = call.find("From: ");
    call.replace(at, call.find("\r\n", at) - at, "From: Smith, John <sip:+49891@home.example;user=phone>;tag=a1");
    net.core_peer.send(call, net.core_side);
    CHECK(first_line(net.core_peer.receive()) == "SIP/2.0 100 Trying");
    const std::string invite = net.ue_server.receive();
    CHECK(header(invite, "From") == "Smith, John <sip:+49891@home.example;user=phone>;tag=a1");
    CHECK(contains(invite, "Via: SIP/2.0/UDP pstn.example:0;branch=z9hG4bKfar"));
    CHECK_FALSE(contains(invite, "P-Access-Network-Info"));
    net.ue_client.send(response_text(invite, 200), net.ps);
    const std::string answer = net.core_peer.receive();
    CHECK(first_line(answer) == "SIP/2.0 200 Text");
    CHECK(header(answer, "P-Charging-Vector") == "icid-value=x;orig-ioi=home.example;term-ioi=visited.example");
}

TEST_CASE("C-70: an INVITE call to the phone, answered, and the core's ACK finds it by the token") {
    ProxyNetwork net;
    net.core_peer.send(net.from_core("INVITE", net.our_route()), net.core_side);
    CHECK(first_line(net.core_peer.receive()) == "SIP/2.0 100 Trying");
    const std::string invite = net.ue_server.receive();
    CHECK(first_line(invite) == "INVITE sip:alice@192.0.2.7:1357 SIP/2.0");
    CHECK(header(invite, "Via").starts_with("SIP/2.0/UDP " + net.ps.to_string() + ";branch="));  // port_ps, not port_pc
    CHECK(without_marks(header(invite, "Record-Route")) ==
          "<sip:tok1@" + net.ps.to_string() + ";lr>, <sip:tok1@" + net.core_side.to_string() + ";lr>");
    net.ue_client.send(response_text(invite, 180), net.ps);
    CHECK(first_line(net.core_peer.receive()) == "SIP/2.0 180 Text");
    net.ue_client.send(response_text(invite, 200), net.ps);
    const std::string answer = net.core_peer.receive();
    CHECK(first_line(answer) == "SIP/2.0 200 Text");
    CHECK(header(answer, "P-Asserted-Identity") == "<sip:alice@home.example>");
    CHECK(header(answer, "P-Charging-Vector").empty());  // the core gave none
    net.core_peer.send(net.from_core("ACK", "X-In-Dialog: 1\n" + net.our_route(), "z9hG4bKcoreack"), net.core_side);
    const std::string ack = net.ue_server.receive();
    CHECK(first_line(ack) == "ACK sip:alice@192.0.2.7:1357 SIP/2.0");
    CHECK(ack.find("received=") == std::string::npos);  // the core's Via names the address that it came from
}

TEST_CASE("a CANCEL from the phone goes on to the core, and the 487 comes back") {
    ProxyNetwork net;
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

TEST_CASE(
    "C-66: a core that is gone: 504, with the body that asks for restoration where the phone's Accept allows it, outside dialogs") {
    for (const char* lines : {"Accept: application/sdp, application/3gpp-ims+xml;q=0.5\n", "Accept: application/sdp\n",
                              "X-In-Dialog: 1\nAccept: application/3gpp-ims+xml\n"}) {
        INFO(lines);
        ProxyNetwork net;
        net.config.core.transport = CoreTransport::tcp;  // nobody listens there
        net.ue_client.send(net.from_ue("INVITE", "sip:bob@home.example", lines), net.ps);
        const std::string answer = ProxyNetwork::final_of(net.ue_server);
        CHECK(answer.starts_with("SIP/2.0 504 "));
        const auto parsed = sip::Message::parse(answer);
        REQUIRE(parsed.has_value());
        if (std::string_view(lines).find("sdp, ") == std::string_view::npos) {
            CHECK(parsed->body().empty());
            CHECK(header(answer, "P-Asserted-Identity").empty());
            continue;
        }
        CHECK(header(answer, "P-Asserted-Identity") == "<sip:tok1@" + net.core_side.to_string() + ";lr>");
        CHECK(header(answer, "Content-Type") == "application/3gpp-ims+xml");
        CHECK(contains(parsed->body(), "<ims-3gpp version=\"1\"><alternative-service><type>restoration</type>"));
        CHECK(contains(parsed->body(), "<action>initial-registration</action>"));
    }
}

TEST_CASE(
    "RFC 3261 §16.7: a phone's 503 is a 500 for the core, which would take the gateway for dead; its Retry-After stays") {
    ProxyNetwork net;
    net.core_peer.send(net.from_core("MESSAGE", net.our_route()), net.core_side);
    std::string busy = response_text(net.ue_server.receive(), 503);
    busy.insert(busy.find("Content-Length"), "Retry-After: 30\r\n");
    net.ue_client.send(busy, net.ps);
    const std::string answer = net.core_peer.receive();
    CHECK(first_line(answer) == "SIP/2.0 500 Server Internal Error");
    CHECK(header(answer, "Retry-After") == "30");
}

TEST_CASE(
    "C-71, H-8: an unknown token and a phone without a set get 480, who names nobody of ours 404; nothing is sent") {
    ProxyNetwork net;
    net.core_peer.send(net.from_core("MESSAGE", "Route: <sip:other@" + net.core_side.to_string() + ";lr>\n"),
                       net.core_side);
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
    ProxyNetwork net;
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
    ProxyNetwork net;
    net.core_peer.send(ProxyNetwork::request("OPTIONS", "sip:" + net.core_side.to_string(), "", "z9hG4bKping",
                                             net.core_peer.endpoint()),
                       net.core_side);
    CHECK(first_line(net.core_peer.receive()) == "SIP/2.0 200 OK");
}

TEST_CASE(
    "B-15: to a phone that registered over TCP a request goes from port_pc to port_us over one connection, UDP when it does not answer") {
    ProxyNetwork net;
    net.table.find(net.key)->transport = sip::Transport::tcp;
    SUBCASE("it listens") {
        auto listener = sip::open_listening_socket(net.ue_server.endpoint());
        REQUIRE(listener.has_value());
        net.core_peer.send(net.from_core("MESSAGE", net.our_route()), net.core_side);
        Peer phone = Peer::accept(net.loop, *listener);
        net.core_peer.send(net.from_core("MESSAGE", net.our_route(), "z9hG4bKcore2"), net.core_side);
        std::string both = phone.receive();
        while (both.find("MESSAGE sip:", 1) == std::string::npos)
            both += phone.receive();  // the second on the same connection
        CHECK(header(both, "Via").starts_with("SIP/2.0/TCP " + net.ps.to_string()));
        CHECK(peer_of(phone.fd()) == net.pc);
    }
    SUBCASE("it refuses the connection") {
        net.core_peer.send(net.from_core("MESSAGE", net.our_route()), net.core_side);
        CHECK(header(net.ue_server.receive(), "Via").starts_with("SIP/2.0/UDP " + net.ps.to_string()));
    }
}

TEST_CASE(
    "B-15: a phone that registered over TCP and sends by UDP is answered by UDP at port_us; a long request reaches a UDP phone over TCP") {
    ProxyNetwork net;
    net.table.find(net.key)->transport = sip::Transport::tcp;
    net.ue_client.send(net.from_ue("MESSAGE", "sip:bob@home.example"), net.ps);
    net.core_peer.send(response_text(net.core_peer.receive(), 200), net.core_side);
    CHECK(first_line(net.ue_server.receive()) == "SIP/2.0 200 Text");

    net.table.find(net.key)->transport = sip::Transport::udp;
    auto listener = sip::open_listening_socket(net.ue_server.endpoint());
    REQUIRE(listener.has_value());
    net.core_peer.send(
        net.from_core("MESSAGE", net.our_route() + "X-Long: " + std::string(1400, 'x') + "\n", "z9hG4bKlong"),
        net.core_side);
    Peer phone = Peer::accept(net.loop, *listener);
    std::string got = phone.receive();
    CHECK(header(got, "Via").starts_with("SIP/2.0/TCP " + net.ps.to_string()));
    net.core_peer.send(net.from_core("MESSAGE", net.our_route(), "z9hG4bKshort"), net.core_side);
    CHECK(
        header(net.ue_server.receive(), "Via").starts_with("SIP/2.0/UDP "));  // what fits a datagram still goes by UDP
}

TEST_CASE("B-15: a request on the phone's own connection is answered there") {
    ProxyNetwork net;
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
    ProxyNetwork net;
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

TEST_CASE(
    "RFC 3261 §18.1.1: a request too long for a datagram goes to the core over TCP, and over UDP when TCP is refused") {
    ProxyNetwork net;
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
    ProxyNetwork net;
    net.config.core.transport = CoreTransport::tcp;  // nobody listens
    net.ue_client.send(net.from_ue("MESSAGE", "sip:bob@home.example"), net.ps);
    CHECK(first_line(net.ue_server.receive()) == "SIP/2.0 504 Server Time-out");
    CHECK(net.counters.get(Counter::core_unreachable) == 1);
}

TEST_CASE(
    "B-15: a phone's connection that breaks before any answer is replaced by one of ours, that one and a refused one by UDP, within the transaction") {
    ProxyNetwork net;
    Result<sip::FileDescriptor> listener = failure(Reaction::refused, "it does not listen");
    SUBCASE("it listens") {
        listener = sip::open_listening_socket(net.ue_server.endpoint());
        REQUIRE(listener.has_value());
    }
    SUBCASE("it refuses the connection") {}
    auto set = net.table.take_set(*net.table.find(net.key), SetNumber{kSet});
    Peer phone = Peer::tcp(net.loop, net.ps);
    set->parameters.port_uc = phone.endpoint().port;
    net.table.add_set(*net.table.find(net.key), std::move(set));
    net.table.find(net.key)->transport = sip::Transport::tcp;
    CHECK(net.loop.until([&] { return net.transports.connection_count() == 1; }));
    net.core_peer.send(net.from_core("MESSAGE", net.our_route()), net.core_side);
    CHECK(first_line(phone.receive()).starts_with("MESSAGE "));
    phone.reset();
    if (listener) {
        Peer second = Peer::accept(net.loop, *listener);
        CHECK(peer_of(second.fd()) == net.pc);
        CHECK(header(second.receive(), "Via").starts_with("SIP/2.0/TCP " + net.ps.to_string()));
        second.reset();
    }
    const std::string again = net.ue_server.receive();
    CHECK(header(again, "Via").starts_with("SIP/2.0/UDP " + net.ps.to_string()));
    net.ue_client.send(response_text(again, 200), net.ps);
    CHECK(first_line(net.core_peer.receive()) == "SIP/2.0 200 Text");
}

TEST_CASE("RFC 3261 §16.3: a request that comes round unchanged gets 482, a spiral passes") {
    ProxyNetwork net;
    net.core_peer.send(net.from_core("MESSAGE", net.our_route()), net.core_side);
    const std::string first = net.ue_server.receive();
    const std::string looped =
        first.substr(first.find("\r\nVia: ") + 2, first.find("\r\n", first.find("Via: ")) - first.find("Via: ")) + "\n";
    // The core sends it again with our Via below its own: the same way, the same Route.
    net.core_peer.send(net.from_core("MESSAGE", looped + net.our_route(), "z9hG4bKround"), net.core_side);
    CHECK(first_line(net.core_peer.receive()) == "SIP/2.0 482 Loop Detected");
    std::string elsewhere = net.from_core("MESSAGE", looped + net.our_route(), "z9hG4bKspiral");
    elsewhere.replace(elsewhere.find("sip:alice@192.0.2.7:1357"), 24, "sip:alice@192.0.2.7:1358");
    net.core_peer.send(elsewhere, net.core_side);
    CHECK(first_line(net.ue_server.receive()) == "MESSAGE sip:alice@192.0.2.7:1358 SIP/2.0");
}

TEST_CASE("C-71: a token that was tampered with gets 403") {
    ProxyNetwork net;
    std::string token = net.link.marks().new_token();
    CHECK(net.link.marks().judge(token) == TokenVerdict::genuine);
    net.core_peer.send(net.from_core("MESSAGE", "Route: <sip:" + token + "@" + net.core_side.to_string() + ";lr>\n"),
                       net.core_side);
    CHECK(first_line(net.core_peer.receive()) ==
          "SIP/2.0 480 Temporarily Unavailable");  // genuine, but not registered any more
    token[20] = token[20] == '0' ? '1' : '0';
    CHECK(net.link.marks().judge(token) == TokenVerdict::tampered);
    net.core_peer.send(
        net.from_core("MESSAGE", "Route: <sip:" + token + "@" + net.core_side.to_string() + ";lr>\n", "z9hG4bKcore2"),
        net.core_side);
    CHECK(first_line(net.core_peer.receive()) == "SIP/2.0 403 Forbidden");
    CHECK(net.link.marks().judge(OwnMarks().new_token()) == TokenVerdict::foreign);  // another process, an earlier run
}

TEST_CASE("RFC 5658: Record-Route tells the transport of each side") {
    ProxyNetwork net;
    net.table.find(net.key)->transport = sip::Transport::tcp;
    net.ue_client.send(net.from_ue("INVITE", "sip:bob@home.example"), net.ps);
    CHECK(without_marks(header(net.core_peer.receive(), "Record-Route")) ==
          "<sip:tok1@" + net.core_side.to_string() + ";lr>, <sip:tok1@" + net.ps.to_string() + ";transport=tcp;lr>");
}

TEST_CASE("C-53: a phone's own SUBSCRIBE for reg is proxied to the core like any request") {
    ProxyNetwork net;
    net.ue_client.send(net.from_ue("SUBSCRIBE", "sip:alice@home.example", "Event: reg\n"), net.ps);
    const std::string got = net.core_peer.receive();
    CHECK(first_line(got) == "SUBSCRIBE sip:alice@home.example SIP/2.0");
    CHECK(header(got, "Event") == "reg");
    CHECK(header(got, "Route") == "<sip:orig@scscf.home.example;lr>");
    CHECK(header(got, "P-Asserted-Identity") == "<sip:alice@home.example>");
}

namespace {

/// A second next hop of lower priority.
Peer add_second_hop(ProxyNetwork& net) {
    Peer second = Peer::udp(net.loop, Family::v4);
    NextHop other;
    other.endpoint = second.endpoint();
    other.priority = 1;
    net.config.core.next_hops.push_back(other);
    return second;
}

std::string with_line(std::string message, const std::string& line) {
    return message.insert(message.find("Content-Length"), line + "\r\n");
}

/// The next request that is not one of `seen` again.
std::string next_request(Peer& peer, std::string_view branch) {
    for (std::string got = peer.receive();; got = peer.receive())
        if (got.empty() || got.find(branch) != std::string::npos) return got;
}

}  // namespace

TEST_CASE("RFC 3261 §21.5.4: 503 of the first next hop sends the request to the next one; one 503 condemns nobody") {
    ProxyNetwork net;
    Peer second = add_second_hop(net);
    net.ue_client.send(net.from_ue("MESSAGE", "sip:bob@home.example"), net.ps);
    const std::string first = net.core_peer.receive();
    CHECK(header(first, "Via").ends_with(";oc;oc-algo=\"loss\""));  // RFC 7339: offered
    net.core_peer.send(response_text(first, 503), net.core_side);
    const std::string again = second.receive();
    CHECK(first_line(again) == "MESSAGE sip:bob@home.example SIP/2.0");
    CHECK(header(again, "Via") != header(first, "Via"));  // a branch of its own
    second.send(response_text(again, 202), net.core_side);
    CHECK(first_line(net.ue_server.receive()) == "SIP/2.0 202 Text");
    CHECK_FALSE(net.link.health().is_down(net.core_peer.endpoint()));
    net.ue_client.send(net.from_ue("MESSAGE", "sip:bob@home.example", "", "z9hG4bKnext"), net.ps);
    CHECK(next_request(net.core_peer, "z9hG4bKnext").starts_with("MESSAGE "));
}

TEST_CASE(
    "Retry-After of the first next hop: the next request passes it over; with all of them busy what is new gets 503 from "
    "us and troubles nobody, what belongs to a dialog goes out") {
    ProxyNetwork net;
    Peer second = add_second_hop(net);
    const std::string lines = ProxyNetwork::dialog_route(net.established(), ProxyNetwork::End::caller);
    net.ue_client.send(net.from_ue("MESSAGE", "sip:bob@home.example", "", "z9hG4bKone"), net.ps);
    net.core_peer.send(with_line(response_text(next_request(net.core_peer, "z9hG4bKone"), 503), "Retry-After: 20"),
                       net.core_side);
    second.send(response_text(next_request(second, "z9hG4bKone"), 200), net.core_side);
    CHECK(first_line(ProxyNetwork::final_of(net.ue_server)) == "SIP/2.0 200 Text");
    CHECK(net.link.busy().asked_for_rest(net.core_peer.endpoint()));

    net.ue_client.send(net.from_ue("MESSAGE", "sip:bob@home.example", "", "z9hG4bKtwo"), net.ps);
    const std::string two = next_request(second, "z9hG4bKtwo");
    second.send(with_line(response_text(two, 503), "Retry-After: 20"), net.core_side);
    // Not sent to the one that rests: two busy elements do not send it to and fro. 500, not 503 (§16.7 step 6).
    const std::string busy = ProxyNetwork::final_of(net.ue_server);
    CHECK(first_line(busy) == "SIP/2.0 500 Server Internal Error");
    CHECK(header(busy, "Retry-After") == "20");

    net.ue_client.send(net.from_ue("MESSAGE", "sip:bob@home.example", "", "z9hG4bKthree"), net.ps);
    const std::string shed = ProxyNetwork::final_of(net.ue_server);
    CHECK(first_line(shed) == "SIP/2.0 503 Service Unavailable");
    CHECK_FALSE(header(shed, "Retry-After").empty());
    CHECK(net.link.held_back() == 2);
    net.ue_client.send(net.from_ue("BYE", "sip:bob@10.0.0.9", lines, "z9hG4bKbye"), net.ps);
    CHECK(first_line(next_request(net.core_peer, "z9hG4bKbye")) == "BYE sip:bob@10.0.0.9 SIP/2.0");
}

TEST_CASE("RFC 7339: an element that asks for nothing more gets nothing new, a dialog and an emergency call go on") {
    ProxyNetwork net;
    const std::string lines = ProxyNetwork::dialog_route(net.established(), ProxyNetwork::End::caller);
    net.ue_client.send(net.from_ue("MESSAGE", "sip:bob@home.example", "", "z9hG4bKone"), net.ps);
    std::string answer = response_text(next_request(net.core_peer, "z9hG4bKone"), 200);
    const std::string offer = ";oc;oc-algo=\"loss\"";
    answer.replace(answer.find(offer), offer.size(), ";oc=100;oc-algo=\"loss\";oc-validity=60000;oc-seq=1.1");
    net.core_peer.send(answer, net.core_side);
    const std::string told = ProxyNetwork::final_of(net.ue_server);
    CHECK(first_line(told) == "SIP/2.0 200 Text");
    CHECK(told.find("oc=100") == std::string::npos);  // hop by hop
    net.ue_client.send(net.from_ue("MESSAGE", "sip:bob@home.example", "", "z9hG4bKtwo"), net.ps);
    CHECK(first_line(ProxyNetwork::final_of(net.ue_server)) == "SIP/2.0 503 Service Unavailable");
    net.ue_client.send(net.from_ue("BYE", "sip:bob@10.0.0.9", lines, "z9hG4bKbye"), net.ps);
    CHECK(next_request(net.core_peer, "z9hG4bKbye").starts_with("BYE "));
    net.ue_client.send(net.from_ue("INVITE", "urn:service:sos", "", "z9hG4bKsos"), net.ps);
    CHECK(next_request(net.core_peer, "z9hG4bKsos").starts_with("INVITE urn:service:sos "));
}

TEST_CASE("a next hop whose TCP leads nowhere costs its time-out once: the next long request goes at once, over UDP") {
    ProxyNetwork net;
    const auto listener = sip::open_listening_socket(net.core_peer.endpoint());
    REQUIRE(listener.has_value());
    REQUIRE(::listen(listener->get(), 0) == 0);
    std::vector<Peer> full;  // a backlog that is full drops every further SYN
    for (int i = 0; i < 2; ++i) full.push_back(Peer::tcp(net.loop, net.core_peer.endpoint()));
    const std::string longish = "X-Long: " + std::string(1400, 'x') + "\n";
    const auto took = [&](std::string_view branch) {
        const auto begun = std::chrono::steady_clock::now();
        net.ue_client.send(net.from_ue("MESSAGE", "sip:bob@home.example", longish, branch), net.ps);
        CHECK(next_request(net.core_peer, branch).starts_with("MESSAGE "));
        return std::chrono::steady_clock::now() - begun;
    };
    CHECK(took("z9hG4bKfirst") >= std::chrono::seconds{3});
    CHECK(took("z9hG4bKsecond") < std::chrono::seconds{2});
}

TEST_CASE("RFC 3263 §4.3: a refused connection, or silence, sends the request to the next hop within the transaction") {
    ProxyNetwork net;
    Peer second = Peer::udp(net.loop, Family::v4);
    NextHop other;
    other.endpoint = second.endpoint();
    other.priority = 1;
    net.config.core.next_hops.push_back(other);
    SUBCASE("a refused connection") {
        net.config.core.next_hops[0].transport = CoreTransport::tcp;  // nobody listens there
        net.ue_client.send(net.from_ue("MESSAGE", "sip:bob@home.example"), net.ps);
        second.send(response_text(second.receive(), 200), net.core_side);
        CHECK(first_line(net.ue_server.receive()) == "SIP/2.0 200 Text");
    }
    SUBCASE("an INVITE that gets no answer at all") {
        net.config.core.next_hop_answer = seconds{1};
        net.ue_client.send(net.from_ue("INVITE", "sip:bob@home.example"), net.ps);
        CHECK(first_line(net.ue_server.receive()) == "SIP/2.0 100 Trying");
        const std::string again = second.receive();
        CHECK(first_line(again).starts_with("INVITE "));
        second.send(response_text(again, 486), net.core_side);
        CHECK(first_line(net.ue_server.receive()) == "SIP/2.0 486 Text");
    }
    CHECK(net.link.health().is_down(net.core_peer.endpoint()));
    // What is down is passed over by the next request, at once.
    net.ue_client.send(net.from_ue("MESSAGE", "sip:bob@home.example", "", "z9hG4bKnext"), net.ps);
    for (std::string got = second.receive(); !contains(got, "MESSAGE "); got = second.receive()) {}
}

TEST_CASE("one request that a next hop does not answer, while it answers others, moves that request only") {
    ProxyNetwork net;
    Peer second = Peer::udp(net.loop, Family::v4);
    NextHop other;
    other.endpoint = second.endpoint();
    other.priority = 1;
    net.config.core.next_hops.push_back(other);
    net.config.core.next_hop_answer = seconds{1};
    net.ue_client.send(net.from_ue("INVITE", "sip:bob@home.example"), net.ps);
    CHECK(first_line(net.ue_server.receive()) == "SIP/2.0 100 Trying");
    net.ue_client.send(net.from_ue("MESSAGE", "sip:bob@home.example", "", "z9hG4bKother"), net.ps);
    std::string got = net.core_peer.receive();
    while (!contains(got, "MESSAGE ")) got = net.core_peer.receive();
    net.core_peer.send(response_text(got, 200), net.core_side);
    CHECK(first_line(net.ue_server.receive()) == "SIP/2.0 200 Text");
    const std::string again = second.receive();
    CHECK(first_line(again).starts_with("INVITE "));
    second.send(response_text(again, 486), net.core_side);
    CHECK(first_line(net.ue_server.receive()) == "SIP/2.0 486 Text");
    CHECK_FALSE(net.link.health().is_down(net.core_peer.endpoint()));
}

TEST_CASE("RFC 3261 §16.7 step 6: 503 of the last next hop is 500 for the phone") {
    ProxyNetwork net;
    net.ue_client.send(net.from_ue("MESSAGE", "sip:bob@home.example"), net.ps);
    net.core_peer.send(response_text(net.core_peer.receive(), 503), net.core_side);
    CHECK(first_line(net.ue_server.receive()) == "SIP/2.0 500 Server Internal Error");
}

TEST_CASE("no fail-over once the first next hop rings, and none after a CANCEL") {
    ProxyNetwork net;
    Peer second = Peer::udp(net.loop, Family::v4);
    NextHop other;
    other.endpoint = second.endpoint();
    other.priority = 1;
    net.config.core.next_hops.push_back(other);
    net.ue_client.send(net.from_ue("INVITE", "sip:bob@home.example"), net.ps);
    CHECK(first_line(net.ue_server.receive()) == "SIP/2.0 100 Trying");
    const std::string invite = net.core_peer.receive();
    net.core_peer.send(response_text(invite, 180), net.core_side);
    CHECK(first_line(net.ue_server.receive()) == "SIP/2.0 180 Text");
    net.core_peer.send(response_text(invite, 503), net.core_side);
    CHECK(first_line(net.ue_server.receive()) == "SIP/2.0 500 Server Internal Error");
    CHECK_FALSE(second.try_receive().has_value());
}

TEST_CASE("a dialog stays with the next hop that its Route names") {
    ProxyNetwork net;
    Peer second = Peer::udp(net.loop, Family::v4);
    NextHop other;
    other.endpoint = second.endpoint();
    other.priority = 1;
    net.config.core.next_hops.push_back(other);
    const std::string lines =
        ProxyNetwork::dialog_route(net.established(second.endpoint().to_string()), ProxyNetwork::End::caller);
    net.ue_client.send(net.from_ue("BYE", "sip:bob@10.0.0.9", lines), net.ps);
    CHECK(first_line(second.receive()) == "BYE sip:bob@10.0.0.9 SIP/2.0");
    net.ue_client.send(net.from_ue("ACK", "sip:bob@10.0.0.9", lines, "z9hG4bKack"), net.ps);
    CHECK(first_line(second.receive()) == "ACK sip:bob@10.0.0.9 SIP/2.0");
}

TEST_CASE("follow-route: requests go where Service-Route says; a Route that names a stranger goes to the next hop") {
    ProxyNetwork net;
    Peer scscf = Peer::udp(net.loop, Family::v4);
    net.config.core.follow_route = true;
    net.table.find(net.key)->service_route = {"<sip:orig@" + scscf.endpoint().to_string() + ";lr>"};
    net.ue_client.send(net.from_ue("MESSAGE", "sip:bob@home.example"), net.ps);
    CHECK(header(scscf.receive(), "Route") == "<sip:orig@" + scscf.endpoint().to_string() + ";lr>");
    Peer stranger = Peer::udp(net.loop, Family::v4);
    std::string evil = stranger.endpoint().to_string();
    evil.replace(0, evil.find(':'), "127.0.0.9");
    // In no dialog of ours: it goes where a request outside a dialog goes, to the Service-Route.
    net.ue_client.send(
        net.from_ue("BYE", "sip:bob@10.0.0.9", "X-In-Dialog: 1\nRoute: <sip:" + evil + ";lr>\n", "z9hG4bKevil"),
        net.ps);
    CHECK(first_line(scscf.receive()) == "BYE sip:bob@10.0.0.9 SIP/2.0");
    // The far end named it in Record-Route: the dialog is known, but an element that nobody has configured is not
    // asked.
    net.table.find(net.key)->service_route = {"<sip:orig@scscf.home.example;lr>"};
    const std::string answer = net.established(evil);
    net.ue_client.send(net.from_ue("BYE", "sip:bob@10.0.0.9",
                                   ProxyNetwork::dialog_route(answer, ProxyNetwork::End::caller), "z9hG4bKlater"),
                       net.ps);
    CHECK(first_line(net.core_peer.receive()) == "BYE sip:bob@10.0.0.9 SIP/2.0");
}

TEST_CASE("follow-route: a route set leads to no port of the core's machine that the core does not use") {
    ProxyNetwork net;
    net.config.core.follow_route = true;
    Peer stranger = Peer::udp(net.loop, Family::v4);
    const std::string answer = net.established(stranger.endpoint().to_string());
    net.ue_client.send(net.from_ue("BYE", "sip:bob@10.0.0.9",
                                   ProxyNetwork::dialog_route(answer, ProxyNetwork::End::caller), "z9hG4bKport"),
                       net.ps);
    CHECK(first_line(net.core_peer.receive()) == "BYE sip:bob@10.0.0.9 SIP/2.0");
    CHECK_FALSE(stranger.try_receive().has_value());
}

TEST_CASE(
    "C-83: an emergency request over the SAs goes to the E-CSCF without Service-Route, and asserts the user; C-81, C-82: nothing else over an emergency registration") {
    ProxyNetwork net;
    Peer ecscf = Peer::udp(net.loop, Family::v4);
    NextHop hop;
    hop.endpoint = ecscf.endpoint();
    net.config.core.emergency_next_hops.push_back(hop);
    net.ue_client.send(net.from_ue("INVITE", "urn:service:sos.fire", "Route: <sip:orig@scscf.home.example;lr>\n"),
                       net.ps);
    const std::string invite = ecscf.receive();
    CHECK(first_line(invite) == "INVITE urn:service:sos.fire SIP/2.0");
    CHECK(header(invite, "Route").empty());
    CHECK(header(invite, "P-Asserted-Identity") == "<sip:alice@home.example>");
    CHECK_FALSE(net.core_peer.try_receive().has_value());

    auto registration = net.table.take(net.key);
    net.key.reg_id = "sos:1";
    registration->key = net.key;
    net.table.add(std::move(registration));
    net.ue_client.send(net.from_ue("MESSAGE", "sip:bob@home.example", "", "z9hG4bKother"), net.ps);
    for (std::string got = net.ue_server.receive();; got = net.ue_server.receive()) {
        if (first_line(got) == "SIP/2.0 100 Trying") continue;
        CHECK(first_line(got) == "SIP/2.0 403 Forbidden");
        break;
    }
}

TEST_CASE(
    "C-83: alternative-service: who dials an emergency number as a normal call gets 380; an emergency registration does not") {
    ProxyNetwork net;
    net.config.sip_interfaces.front().alternative_service = true;
    int number = 0;
    const auto call = [&](std::string_view uri) {
        net.ue_client.send(net.from_ue("INVITE", uri, "", fmt::format("z9hG4bKn{}", ++number)), net.ps);
    };
    for (const char* uri : {"tel:112", "sip:911@home.example;user=phone", "sip:112@home.example"}) {
        INFO(uri);
        call(uri);
        const std::string answer = ProxyNetwork::final_of(net.ue_server);
        CHECK(first_line(answer) == "SIP/2.0 380 Alternative Service");
        CHECK(header(answer, "P-Asserted-Identity") == "<sip:tok1@" + net.core_side.to_string() + ";lr>");
        CHECK(header(answer, "Contact") == "<urn:service:sos>");
        CHECK(header(answer, "Content-Type") == "application/3gpp-ims+xml");
        const auto parsed = sip::Message::parse(answer);
        REQUIRE(parsed.has_value());
        CHECK(contains(parsed->body(), "<type>emergency</type>"));
        CHECK(contains(parsed->body(), "<action>emergency-registration</action>"));
    }
    CHECK_FALSE(net.core_peer.try_receive().has_value());
    call("urn:service:sos");  // the phone knows what it does
    CHECK(first_line(net.core_peer.receive()) == "INVITE urn:service:sos SIP/2.0");
    auto registration = net.table.take(net.key);
    net.key.reg_id = "sos:1";
    registration->key = net.key;
    net.table.add(std::move(registration));
    call("tel:112");
    std::string at_core = net.core_peer.receive();
    while (first_line(at_core) == "INVITE urn:service:sos SIP/2.0") at_core = net.core_peer.receive();
    CHECK(first_line(at_core) == "INVITE tel:112 SIP/2.0");
}

TEST_CASE("C-83: without alternative-service the call goes to the E-CSCF; what brings no help goes the usual way") {
    ProxyNetwork net;
    Peer ecscf = Peer::udp(net.loop, Family::v4);
    NextHop hop;
    hop.endpoint = ecscf.endpoint();
    net.config.core.emergency_next_hops.push_back(hop);
    net.ue_client.send(net.from_ue("INVITE", "tel:112"), net.ps);
    CHECK(first_line(ecscf.receive()) == "INVITE tel:112 SIP/2.0");
    net.ue_client.send(net.from_ue("SUBSCRIBE", "urn:service:sos", "", "z9hG4bKother"), net.ps);
    CHECK(first_line(net.core_peer.receive()) == "SUBSCRIBE urn:service:sos SIP/2.0");
}

TEST_CASE("G-9: a CANCEL on an unprotected port is answered, and what is refused there is told why") {
    ProxyNetwork net;
    const Endpoint open_port = sip::test::free_endpoint(Family::v4);
    REQUIRE(net.transports.listen(open_port, {}).has_value());
    SipInterface interface;
    net.transactions.on_request([&](std::shared_ptr<sip::ServerTransaction> transaction) {
        spawn(net.loop.io.get_executor(), net.router.unprotected(transaction, interface, ""), "test");
    });
    Peer& stranger = net.ue_client;
    const auto text = [&](std::string_view method) {
        return ProxyNetwork::request(method, "sip:bob@home.example", "", "z9hG4bKs1", stranger.endpoint());
    };
    stranger.send(text("INVITE"), open_port);
    std::string refused = stranger.receive();
    CHECK(first_line(refused) == "SIP/2.0 403 Forbidden");
    CHECK(contains(header(refused, "Warning"), "neither sec-agree-feature nor ims-aka-feature is enabled"));
    interface.sec_agree_feature = true;
    stranger.send(text("MESSAGE"), open_port);
    refused = stranger.receive();
    CHECK(first_line(refused) == "SIP/2.0 403 Forbidden");
    CHECK(header(refused, "Warning") == "399 gmgate \"only REGISTER and emergency on an unprotected port\"");
    stranger.send(text("CANCEL"), open_port);  // its INVITE was refused and forgotten
    refused = stranger.receive();
    CHECK(first_line(refused) == "SIP/2.0 481 Call/Transaction Does Not Exist");
    CHECK_FALSE(header(refused, "Warning").empty());
}

TEST_CASE(
    "C-80, C-84: an emergency call from an unprotected port reaches the core, asserts nobody, and its dialog passes both ways") {
    ProxyNetwork net;
    const Endpoint open_port = sip::test::free_endpoint(Family::v4);
    REQUIRE(net.transports.listen(open_port, {}).has_value());
    SipInterface interface;
    interface.sec_agree_feature = true;
    net.transactions.on_request([&](std::shared_ptr<sip::ServerTransaction> transaction) {
        if (transaction->flow().local == net.core_side)
            spawn(net.loop.io.get_executor(), net.router.from_core(transaction), "test");
        else
            spawn(net.loop.io.get_executor(),
                  net.router.unprotected(transaction, interface, "ipsec-3gpp;alg=hmac-sha-1-96"), "test");
    });
    net.mark = 0;
    Peer& phone = net.ue_client;
    const auto text = [&](std::string_view method, std::string_view uri, std::string_view lines,
                          std::string_view branch) {
        return ProxyNetwork::request(method, uri, lines, branch, phone.endpoint());
    };
    phone.send(text("INVITE", "sip:bob@home.example", "Require: sec-agree\n", "z9hG4bKe0"), open_port);
    const std::string refused = phone.receive();
    CHECK(first_line(refused) == "SIP/2.0 494 Security Agreement Required");
    CHECK(header(refused, "Security-Server") == "ipsec-3gpp;alg=hmac-sha-1-96");
    phone.send(text("ACK", "sip:bob@home.example", "X-In-Dialog: 1\n", "z9hG4bKe0"), open_port);

    phone.send(text("INVITE", "urn:service:sos", "P-Asserted-Identity: <sip:x@y>\nRoute: <sip:evil.example;lr>\n",
                    "z9hG4bKe1"),
               open_port);
    CHECK(first_line(phone.receive()) == "SIP/2.0 100 Trying");
    const std::string invite = net.core_peer.receive();
    CHECK(first_line(invite) == "INVITE urn:service:sos SIP/2.0");
    CHECK(header(invite, "P-Asserted-Identity").empty());
    CHECK(header(invite, "Route").empty());
    std::string answer = ProxyNetwork::answer_by_way_of("ecscf.home.example", invite, 200);
    net.core_peer.send(answer.insert(answer.find("Call-ID"), "Contact: <sip:psap@10.0.0.9>\r\n"), net.core_side);
    CHECK(first_line(phone.receive()) == "SIP/2.0 200 Text");
    phone.send(text("ACK", "sip:psap@10.0.0.9", "X-In-Dialog: 1\n", "z9hG4bKe2"), open_port);
    const std::string ack = net.core_peer.receive();
    CHECK(first_line(ack) == "ACK sip:psap@10.0.0.9 SIP/2.0");
    CHECK(header(ack, "Route") == "<sip:ecscf.home.example;lr>");  // of the dialog, whatever the phone says

    // Issue of the open door: other methods, other tags, another target, and another address by this Call-ID.
    const auto refused_in_dialog = [&](std::string_view method, std::string_view uri, std::string_view branch,
                                       std::string_view tag = "b1") {
        std::string request = text(method, uri, "X-In-Dialog: 1\n", branch);
        request.replace(request.find("tag=b1"), 6, fmt::format("tag={}", tag));
        phone.send(request, open_port);
        return first_line(phone.receive());
    };
    CHECK(refused_in_dialog("MESSAGE", "sip:psap@10.0.0.9", "z9hG4bKe3") == "SIP/2.0 403 Forbidden");
    CHECK(refused_in_dialog("REFER", "sip:psap@10.0.0.9", "z9hG4bKe4") == "SIP/2.0 403 Forbidden");
    CHECK(refused_in_dialog("INVITE", "sip:bob@home.example", "z9hG4bKe5") == "SIP/2.0 403 Forbidden");
    CHECK(refused_in_dialog("BYE", "sip:psap@10.0.0.9", "z9hG4bKe6", "b2") == "SIP/2.0 403 Forbidden");
    CHECK_FALSE(net.core_peer.try_receive().has_value());

    const std::string route = header(invite, "Record-Route");
    net.core_peer.send(net.from_core("BYE", "X-In-Dialog: 1\nRoute: " + route + "\n"), net.core_side);
    const std::string bye = phone.receive();
    CHECK(first_line(bye).starts_with("BYE "));
    phone.send(response_text(bye, 200), open_port);
    CHECK(first_line(net.core_peer.receive()) == "SIP/2.0 200 Text");
    CHECK(net.loop.until([&] { return net.router.emergency_dialogs().size() == 0; }));
}
