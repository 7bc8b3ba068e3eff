// Who may answer, cancel and acknowledge: what a CANCEL says on its next leg, and what belongs to no transaction but
// comes from the wrong one.
#include "tests/unit/daemon/proxy/network.h"

using namespace gmgate;
using namespace gmgate::daemon;
using namespace gmgate::daemon::test;

namespace {

constexpr std::uint32_t kBobsSet = 78;

/// Alice, as in ProxyNetwork, and another registered phone with a set of its own.
struct TwoPhones : ProxyNetwork {
    Peer bob_client = Peer::udp(loop, Family::v4), bob_server = Peer::udp(loop, Family::v4);

    TwoPhones() {
        auto set = std::make_unique<SaSet>();
        set->number = SetNumber{kBobsSet};
        set->state = SetState::established;
        set->in_use = true;
        set->parameters.ue = set->parameters.gateway = sip::test::loopback(Family::v4);
        set->parameters.port_uc = bob_client.endpoint().port;
        set->parameters.port_us = bob_server.endpoint().port;
        set->parameters.port_pc = pc.port;
        set->parameters.port_ps = ps.port;
        auto registration = std::make_unique<Registration>();
        registration->key = {Impi("bob_private@home.example"), "", ""};
        registration->token = "tok2";
        registration->realm_id = "access";
        registration->sets.push_back(std::move(set));
        table.add(std::move(registration));
    }
    void send_as_alice(const std::string& text) {
        mark = kSet;
        ue_client.send(text, ps);
    }
    void send_as_bob(const std::string& text) {
        mark = kBobsSet;
        bob_client.send(text, ps);
    }
    bool is_dropped(std::uint64_t number) {
        return loop.until([&] { return counters.get(Counter::stray_wrong_door) == number; });
    }
};

std::string with_lines(std::string text, const std::string& lines) {
    text.insert(text.find("Content-Length"), lines);
    return text;
}

/// The 2xx of a transaction that is forgotten: no branch of it is known.
std::string late_2xx(const std::string& invite, const std::string& record_route) {
    std::string text = response_text(invite, 200);
    const auto at = text.find("branch=z9hG4bK") + 14;
    text.replace(at, 6, "forgot");
    for (std::size_t line = text.find("Record-Route:"); line != std::string::npos; line = text.find("Record-Route:"))
        text.erase(line, text.find('\n', line) + 1 - line);
    return with_lines(std::move(text), "Record-Route: " + record_route + "\r\n");
}

}  // namespace

TEST_CASE("a CANCEL keeps its Reason on the next leg, in both directions") {
    const std::string reasons = "Reason: SIP;cause=200;text=\"Call completed elsewhere\"\r\nReason: Q.850;cause=26\r\n";
    {
        ProxyNetwork net;
        net.ue_client.send(net.from_ue("INVITE", "sip:bob@home.example"), net.ps);
        net.core_peer.send(response_text(net.core_peer.receive(), 180), net.core_side);
        CHECK(ProxyNetwork::final_of(net.ue_server).starts_with("SIP/2.0 180"));
        net.ue_client.send(with_lines(net.from_ue("CANCEL", "sip:bob@home.example"),
                                      reasons + "P-Asserted-Identity: <sip:king@home.example>\r\n"
                                                "Resource-priority: wps.0,\r\n ets.0\r\nUser-Agent: x\r\n"),
                           net.ps);
        const std::string cancel = net.core_peer.receive();
        CHECK(first_line(cancel).starts_with("CANCEL "));
        CHECK(cancel.find(reasons) != std::string::npos);
        CHECK(header(cancel, "P-Asserted-Identity").empty());
        CHECK(cancel.find("ets.0") == std::string::npos);  // a phone says nothing of priority, in no request
        CHECK(header(cancel, "User-Agent") == "x");
    }
    ProxyNetwork net;
    net.core_peer.send(net.from_core("INVITE", net.our_route()), net.core_side);
    net.ue_client.send(response_text(net.ue_server.receive(), 180), net.ps);
    CHECK(ProxyNetwork::final_of(net.core_peer).starts_with("SIP/2.0 180"));
    net.core_peer.send(with_lines(net.from_core("CANCEL", net.our_route()), reasons), net.core_side);
    const std::string cancel = net.ue_server.receive();
    CHECK(first_line(cancel).starts_with("CANCEL "));
    CHECK(cancel.find(reasons) != std::string::npos);
}

TEST_CASE("a late 2xx of a phone passes only when its Record-Route is that phone's own") {
    TwoPhones net;
    net.core_peer.send(net.from_core("INVITE", net.our_route()), net.core_side);
    const std::string invite = net.ue_server.receive();
    const std::string own = header(invite, "Record-Route");
    CHECK(first_line(net.core_peer.receive()) == "SIP/2.0 100 Trying");
    net.send_as_bob(late_2xx(invite, own));
    REQUIRE(net.is_dropped(1));
    net.send_as_alice(late_2xx(invite, "<sip:somebody.example;lr>"));
    REQUIRE(net.is_dropped(2));
    const std::string of_bob = "<sip:tok2@" + net.core_side.to_string() + ";lr>";
    net.send_as_bob(late_2xx(invite, of_bob));  // his own: but the INVITE did not go to him
    REQUIRE(net.is_dropped(3));
    std::string other_call = late_2xx(invite, own);
    other_call.replace(other_call.find("Call-ID: c1"), 11, "Call-ID: c2");
    net.send_as_alice(other_call);
    REQUIRE(net.is_dropped(4));
    std::string other_asker = late_2xx(invite, own);
    other_asker.replace(other_asker.find("z9hG4bKcore1"), 12, "z9hG4bKcore2");
    net.send_as_alice(other_asker);
    REQUIRE(net.is_dropped(5));
    CHECK_FALSE(net.core_peer.try_receive().has_value());
    net.send_as_alice(late_2xx(invite, own));
    CHECK(first_line(net.core_peer.receive()) == "SIP/2.0 200 Text");
}

TEST_CASE("a late 2xx goes where the core takes answers; no Via that a phone writes opens a way to another port") {
    TwoPhones net;
    net.core_peer.send(net.from_core("INVITE", net.our_route()), net.core_side);
    const std::string invite = net.ue_server.receive();
    const std::string own = header(invite, "Record-Route");
    CHECK(first_line(net.core_peer.receive()) == "SIP/2.0 100 Trying");
    const auto good = late_2xx(invite, own);
    const auto core_via = fmt::format("SIP/2.0/UDP {}", net.core_peer.endpoint().to_string());
    REQUIRE(good.find(core_via) != std::string::npos);
    Peer ssh = Peer::udp(net.loop, Family::v4);  // another service of the core's machine
    const auto listener = sip::open_listening_socket(sip::test::free_endpoint(Family::v4));
    REQUIRE(listener.has_value());
    std::uint64_t dropped = 0;
    for (const auto& via : {fmt::format("SIP/2.0/UDP {}", ssh.endpoint().to_string()),
                            fmt::format("SIP/2.0/TCP {}", sip::local_endpoint_of(listener->get()).to_string()),
                            fmt::format("SIP/2.0/TCP {}", net.core_peer.endpoint().to_string()),
                            fmt::format("{};rport={}", core_via, ssh.endpoint().port.value),
                            fmt::format("SIP/2.0/UDP core.example:{};received=127.0.0.1", ssh.endpoint().port.value)}) {
        auto text = good;
        text.replace(text.find(core_via), core_via.size(), via);
        net.send_as_alice(text);
        REQUIRE_MESSAGE(net.is_dropped(++dropped), via);
    }
    net.send_as_alice(good);
    CHECK(first_line(net.core_peer.receive()) == "SIP/2.0 200 Text");
    CHECK_FALSE(ssh.try_receive().has_value());
    CHECK(::accept4(listener->get(), nullptr, nullptr, SOCK_NONBLOCK) == -1);
    CHECK(net.transports.counters().connections_opened == 0);
}

TEST_CASE("an ACK in the dialog of another phone goes nowhere") {
    TwoPhones net;
    const std::string route =
        "X-In-Dialog: 1\nRoute: <sip:tok1@" + net.ps.to_string() + ";lr>, <sip:scscf.home.example;lr>\n";
    const std::string ack = net.from_ue("ACK", "sip:peer@10.0.0.9", route, "z9hG4bKack");
    net.send_as_bob(ack);
    REQUIRE(net.is_dropped(1));
    CHECK_FALSE(net.core_peer.try_receive().has_value());
    net.send_as_alice(ack);
    CHECK(first_line(net.core_peer.receive()) == "ACK sip:peer@10.0.0.9 SIP/2.0");
}

TEST_CASE("a late 2xx at the core's port passes only from an address of the core") {
    TwoPhones net;
    net.send_as_alice(net.from_ue("INVITE", "sip:peer@home.example"));
    const std::string invite = net.core_peer.receive();
    CHECK(first_line(net.ue_server.receive()) == "SIP/2.0 100 Trying");
    Peer stranger = Peer::udp(net.loop, *Address::parse("127.0.0.2"));
    const std::string late = late_2xx(invite, header(invite, "Record-Route"));
    stranger.send(late, net.core_side);
    REQUIRE(net.is_dropped(1));
    stranger.send(response_text(invite, 200), net.core_side);  // nor to the transaction that is open
    CHECK(net.loop.until([&] { return net.transactions.counters().responses_wrong_door == 1; }));
    CHECK_FALSE(net.ue_server.try_receive().has_value());
    std::string made_up = late;
    const auto mark = made_up.find('.', made_up.find("branch="));
    made_up.replace(mark + 2, 4, "0000");
    net.core_peer.send(made_up, net.core_side);
    REQUIRE(net.is_dropped(2));
    net.core_peer.send(late, net.core_side);
    CHECK(first_line(net.ue_server.receive()) == "SIP/2.0 200 Text");
}

TEST_CASE(
    "B-54: the phone at a door's other end is the same over every set and contact of one device, and nobody else's") {
    ProxyNetwork net;
    Table& table = net.table;
    const Address ue = sip::test::loopback(Family::v4);
    const auto make_set = [&](std::uint32_t number, std::uint16_t port) {
        auto set = std::make_unique<SaSet>();
        set->number = SetNumber{number};
        set->parameters.ue = set->parameters.gateway = ue;
        set->parameters.port_uc = Port{port};
        set->parameters.port_us = Port{static_cast<std::uint16_t>(port + 1)};
        set->parameters.port_pc = net.pc.port;
        set->parameters.port_ps = net.ps.port;
        return set;
    };
    const auto came = [&](std::uint32_t number, std::uint16_t port) {
        return table.phone_of({.transport = sip::Transport::udp,
                               .local = net.ps,
                               .remote = {ue, Port{port}},
                               .connection = {},
                               .mark = Mark{number}},
                              sip::Direction::in);
    };
    const sip::Flow out{.transport = sip::Transport::udp,
                        .local = net.pc,
                        .remote = net.ue_server.endpoint(),
                        .connection = {},
                        .mark = {}};
    const auto phone = came(kSet, net.ue_client.endpoint().port.value);
    CHECK(phone.value > kCoreOwner.value);
    CHECK(table.phone_of(out, sip::Direction::out) == phone);
    CHECK(table.phone_of(out, sip::Direction::in).value == 0);  // a datagram that comes without a mark is nobody's
    CHECK(came(0, net.ue_client.endpoint().port.value).value == 0);
    CHECK(came(kSet, 9).value == 0);  // the mark of a set with other ends

    auto challenge = std::make_unique<Challenge>();
    challenge->impi = net.key.impi;
    challenge->ue = ue;
    challenge->contact = net.key;
    challenge->set = make_set(80, 2000);
    (void)table.put_challenge(std::move(challenge));
    CHECK(came(80, 2000) == phone);  // a temporary set
    auto taken = table.take_challenge({net.key.impi, ue, false});
    table.add_set(*table.find(net.key), std::move(taken->set));
    CHECK(came(80, 2000) == phone);  // and as the new one beside the old
    (void)table.take_set(*table.find(net.key), SetNumber{kSet});
    CHECK(came(80, 2000) == phone);

    for (const auto& [contact, number, is_same] :
         {std::tuple{ContactKey{net.key.impi, "", "sos:"}, 81u, true},
          std::tuple{ContactKey{net.key.impi, "urn:uuid:2", ""}, 82u, false},
          std::tuple{ContactKey{Impi("other@home.example"), "", ""}, 83u, false}}) {
        auto registration = std::make_unique<Registration>();
        registration->key = contact;
        registration->token = std::to_string(number);
        registration->sets.push_back(make_set(number, static_cast<std::uint16_t>(number * 100)));
        table.add(std::move(registration));
        CHECK((came(number, static_cast<std::uint16_t>(number * 100)) == phone) == is_same);
    }
}
