// What strangers cause at the core's connections costs strangers only: a connection of their own, and no next hop that
// counts as down.
#include <algorithm>

#include "tests/unit/daemon/proxy/network.h"

using namespace gmgate;
using namespace gmgate::daemon;
using namespace gmgate::daemon::test;

namespace {

/// A core over TCP that the test plays: every connection that it accepts, and what came over it.
struct TcpCore {
    explicit TcpCore(ProxyNetwork& n) : net(n), listener(sip::open_listening_socket(n.core_peer.endpoint())) {
        REQUIRE(listener.has_value());
        net.config.core.transport = CoreTransport::tcp;
    }
    Peer accept() { return Peer::accept(net.loop, *listener); }
    bool is_asked_again() {
        pollfd state{listener->get(), POLLIN, 0};
        return ::poll(&state, 1, 0) > 0;
    }

    ProxyNetwork& net;
    Result<sip::FileDescriptor> listener;
};

/// What became of one request: a status, 0 while it waits, -1 without an answer.
struct Asked {
    int status = 0;
    bool is_disliked = false;
    std::string why{};
};

Task<bool> ask(ProxyNetwork& net, std::string name, Traffic traffic, Asked& result) {
    const auto build = [&](sip::Transport transport, const CoreSide& side) {
        return crlf(
            fmt::format("REGISTER sip:home.example SIP/2.0\nVia: SIP/2.0/{} {};branch={}\nMax-Forwards: 70\nFrom: "
                        "<sip:{}@home.example>;tag=a1\n"
                        "To: <sip:b@home.example>\nCall-ID: {}\nCSeq: 1 REGISTER\nContent-Length: 0\n\n",
                        sip::to_string(transport), side.via_host, sip::Transactions::new_branch(), name, name));
    };
    Result<std::vector<Target>> targets = co_await net.link.next_hops();
    CoreAttempts attempts(net.link, std::move(*targets), build, traffic);
    auto sent = co_await attempts.next();
    while (sent) {
        const Result<sip::OwnedMessage> response = co_await (*sent)->next();
        if (attempts.should_try_again(response)) {
            sent = co_await attempts.next();
            continue;
        }
        result.status = response ? (*response)->status() : -1;
        if (!response) result.why = response.error().text;
        break;
    }
    if (!sent) result = {.status = -1, .why = sent.error().text};
    result.is_disliked = attempts.is_disliked();
    co_return true;
}

struct Asking {
    Asking(ProxyNetwork& net, std::string name, Traffic traffic) {
        net.loop.start(ask(net, std::move(name), traffic, result), [](bool) {});
    }
    Asked result;
};

std::string caller(const std::string& text) { return header(text, "Call-ID"); }

}  // namespace

TEST_CASE("strangers have a connection to the core of their own, also when both are opened at the same moment") {
    ProxyNetwork net;
    TcpCore core(net);
    Asking phone(net, "phone", Traffic::phones), stranger(net, "stranger", Traffic::strangers),
        other(net, "other", Traffic::strangers);
    Peer one = core.accept(), two = core.accept();
    std::string first = one.receive(), second = two.receive();
    if (caller(first) != "phone") {
        std::swap(one, two);
        std::swap(first, second);
    }
    CHECK(caller(first) == "phone");
    CHECK(first.find("stranger") == std::string::npos);
    while (second.find("Call-ID: stranger") == std::string::npos || second.find("Call-ID: other") == std::string::npos)
        second += two.receive();
    CHECK_FALSE(core.is_asked_again());
}

TEST_CASE(
    "a core that closes the connection at a stranger's request: phones and other strangers are answered, the request "
    "is tried once alone, and no next hop is down") {
    ProxyNetwork net;
    TcpCore core(net);
    net.config.core.next_hops.push_back(NextHop{.endpoint = sip::test::free_endpoint(Family::v4), .priority = 1});
    Asking phone(net, "phone", Traffic::phones);
    Peer phones = core.accept();
    const std::string asked = phones.receive();
    Asking innocent(net, "innocent", Traffic::strangers);
    Peer strangers = core.accept();
    CHECK(caller(strangers.receive()) == "innocent");
    Asking poison(net, "poison", Traffic::strangers);
    CHECK(caller(strangers.receive()) == "poison");
    SUBCASE("in order") { strangers.close(); }
    SUBCASE("by RST") { strangers.reset(); }

    for (int i = 0; i < 2; ++i) {  // each on a connection of its own now
        Peer alone = core.accept();
        const std::string text = alone.receive();
        if (caller(text) == "innocent") {
            alone.send(response_text(text, 401));
            CHECK(alone.receive().empty());  // closed by us: it was for this one request
        } else {
            CHECK(caller(text) == "poison");
            alone.reset();
        }
    }
    CHECK(net.loop.until([&] { return innocent.result.status != 0 && poison.result.status != 0; }));
    CHECK(innocent.result.status == 401);
    CHECK_FALSE(innocent.result.is_disliked);
    CHECK(poison.result.status == -1);
    CHECK(poison.result.is_disliked);
    phones.send(response_text(asked, 200));
    CHECK(net.loop.until([&] { return phone.result.status != 0; }));
    CHECK(phone.result.status == 200);
    CHECK_FALSE(core.is_asked_again());
    CHECK(net.link.health().size() == 0);

    Asking next(net, "next", Traffic::strangers);  // the strangers' connection is opened anew
    Peer again = core.accept();
    again.send(response_text(again.receive(), 200));
    CHECK(net.loop.until([&] { return next.result.status == 200; }));
}

TEST_CASE(
    "RFC 3263 §4.3: an element that refuses connections is down for strangers, too, and the next one gets the "
    "request") {
    ProxyNetwork net;
    TcpCore core(net);
    const Endpoint nobody = sip::test::free_endpoint(Family::v4);
    net.config.core.next_hops = {NextHop{.endpoint = nobody},
                                 NextHop{.endpoint = net.core_peer.endpoint(), .priority = 1}};
    Asking stranger(net, "stranger", Traffic::strangers);
    Peer second = core.accept();
    second.send(response_text(second.receive(), 401));
    CHECK(net.loop.until([&] { return stranger.result.status == 401; }));
    CHECK(net.link.health().is_down(nobody));
}

TEST_CASE("our own limit of connections says nothing of the core") {
    ProxyNetwork net;
    TcpCore core(net);
    sip::Transports few{net.loop.io.get_executor(), {.connections = 0}};
    sip::Transactions transactions{
        net.loop.io.get_executor(), few, {}, [](const sip::Flow&) { return sip::kCoreTimers; }};
    CoreLink link{net.config.core, few, transactions};
    Target target;
    target.endpoint = net.core_peer.endpoint();
    target.transport = CoreTransport::tcp;
    CoreAttempts attempts(
        link, {target}, [](sip::Transport, const CoreSide&) { return std::string("x"); }, Traffic::phones);
    const auto sent = net.loop.get(attempts.next());
    REQUIRE_FALSE(sent.has_value());
    CHECK(sent.error().reaction == Reaction::exhausted);
    CHECK(link.health().size() == 0);
    few.shutdown();
}

TEST_CASE(
    "a stranger's REGISTER without Content-Length that is too long for a datagram: over TCP the core reads one "
    "message") {
    const std::string smuggled =
        "MESSAGE sip:victim@home.example SIP/2.0\r\nP-Asserted-Identity: <sip:boss@home.example>\r\nContent-Length: "
        "0\r\n\r\n";
    const std::string text = crlf(
                                 "REGISTER sip:home.example SIP/2.0\nVia: SIP/2.0/UDP "
                                 "192.0.2.1;branch=z9hG4bK1\nMax-Forwards: 70\nFrom: <sip:a@home.example>;tag=1\n"
                                 "To: <sip:a@home.example>\nCall-ID: c1\nCSeq: 1 REGISTER\nX-Long: " +
                                 std::string(1400, 'x') + "\n\n") +
                             smuggled;
    const auto request = sip::OwnedMessage::parse(text);
    REQUIRE(request.has_value());
    RegisterToCore rules;
    rules.transport = sip::Transport::tcp;
    rules.via_host = "192.0.2.9:5060";
    rules.branch = "z9hG4bK2";
    const auto forwarded = register_to_core(**request, rules);
    REQUIRE(forwarded.has_value());
    const auto reread = sip::OwnedMessage::parse(*forwarded);
    REQUIRE(reread.has_value());
    CHECK((*reread)->value(sip::HeaderId::content_length) == std::to_string(smuggled.size()));
    CHECK((*reread)->body() == smuggled);
}
