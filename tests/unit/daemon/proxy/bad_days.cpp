// Bad days: retransmission storms, a core that dies in the middle, a phone that vanishes. The right final answers, and
// nothing left behind.
#include <map>

#include "tests/unit/daemon/proxy/network.h"

using namespace gmgate;
using namespace gmgate::daemon;
using namespace gmgate::daemon::test;

namespace {

constexpr sip::Timers kFast{milliseconds{10}, milliseconds{40}, milliseconds{50}};  // Timer B, F, H, J: 640 ms
constexpr sip::Timers kFastUe{milliseconds{40}, milliseconds{160},
                              milliseconds{200}};  // longer, as towards real phones

bool nothing_left(ProxyNetwork& net) {
    return net.loop.until([&] { return net.transactions.server_count() == 0 && net.transactions.client_count() == 0; },
                          seconds{60});
}

/// All that has come to a peer until nothing more is left to come, counted by start line.
std::map<std::string, int> gather(ProxyNetwork& net, Peer& peer) {
    std::map<std::string, int> lines;
    for (auto text = peer.try_receive(); text; text = peer.try_receive()) ++lines[first_line(*text)];
    (void)net;
    return lines;
}

}  // namespace

TEST_CASE(
    "a storm of retransmissions reaches the core as one request; a core that is silent gives each phone one 504, and no transaction stays") {
    ProxyNetwork net;
    net.timers = kFast;
    net.ue_timers = kFastUe;
    constexpr int kRequests = 100, kCopies = 20;
    std::map<std::string, int> seen, answers;
    const auto look = [&] {
        for (auto text = net.core_peer.try_receive(); text; text = net.core_peer.try_receive())
            ++seen[header(*text, "Via")];
        for (auto text = net.ue_server.try_receive(); text; text = net.ue_server.try_receive())
            if (!contains(first_line(*text), " 100 ")) ++answers[header(*text, "Via") + first_line(*text)];
        return false;
    };
    for (int copy = 0; copy < kCopies; ++copy)
        for (int i = 0; i < kRequests; ++i) {
            net.ue_client.send(net.from_ue("MESSAGE", "sip:bob@home.example", "", "z9hG4bKstorm" + std::to_string(i)),
                               net.ps);
            if (i % 20 == 0) net.loop.until(look, milliseconds{1});
        }
    CHECK(net.loop.until(
        [&] {
            look();
            return net.transactions.server_count() == 0 && net.transactions.client_count() == 0;
        },
        seconds{60}));
    CHECK(seen.size() == kRequests);  // a branch each: no copy became a request of its own
    REQUIRE(answers.size() == kRequests);
    CHECK(answers.begin()->first.ends_with("SIP/2.0 504 Server Time-out"));
    CHECK(net.counters.get(Counter::core_unreachable) == kRequests);
    CHECK(net.link.health().size() == 1);
}

TEST_CASE(
    "RFC 3261 §16.9: a core over TCP that dies while it rings, or before it answers: 504 at once, and no transaction stays") {
    ProxyNetwork net;
    net.timers = kFast;
    net.ue_timers = kFastUe;
    net.config.core.transport = CoreTransport::tcp;
    auto listener = sip::open_listening_socket(net.core_peer.endpoint());
    REQUIRE(listener.has_value());
    net.ue_client.send(net.from_ue("INVITE", "sip:bob@home.example"), net.ps);
    {
        Peer core = Peer::accept(net.loop, *listener);
        const std::string invite = core.receive();
        core.send(response_text(invite, 180));
        CHECK(ProxyNetwork::final_of(net.ue_server).starts_with("SIP/2.0 180"));
        listener->close();
        core.reset();
    }
    CHECK(contains(net.ue_server.receive(), "504 Server Time-out"));
    net.ue_client.send(net.from_ue("ACK", "sip:bob@home.example", "X-In-Dialog: 1\n"), net.ps);
    net.ue_client.send(net.from_ue("MESSAGE", "sip:bob@home.example", "", "z9hG4bKother"), net.ps);
    std::string answer;
    CHECK(net.loop.until(
        [&] {
            for (auto text = net.ue_server.try_receive(); text; text = net.ue_server.try_receive())
                if (header(*text, "CSeq") == "7 MESSAGE") answer = *text;
            return !answer.empty();
        },
        seconds{60}));
    CHECK(contains(answer, "504 Server Time-out"));
    CHECK(net.counters.get(Counter::core_unreachable) == 2);
    CHECK(nothing_left(net));
}

TEST_CASE(
    "RFC 3261 §18.2.2: a core that closes its connection while it rings and takes a new one may answer there, and is cancelled there") {
    ProxyNetwork net;
    net.config.core.transport = CoreTransport::tcp;
    auto listener = sip::open_listening_socket(net.core_peer.endpoint());
    REQUIRE(listener.has_value());
    net.ue_client.send(net.from_ue("INVITE", "sip:bob@home.example"), net.ps);
    std::string invite;
    {
        Peer core = Peer::accept(net.loop, *listener);
        invite = core.receive();
        core.send(response_text(invite, 180));
        CHECK(ProxyNetwork::final_of(net.ue_server).starts_with("SIP/2.0 180"));
        core.reset();
    }
    Peer core = Peer::accept(net.loop, *listener);
    net.ue_client.send(net.from_ue("CANCEL", "sip:bob@home.example"), net.ps);
    CHECK(first_line(core.receive()) == "CANCEL sip:bob@home.example SIP/2.0");
    core.send(response_text(invite, 487));
    std::map<std::string, int> lines;
    CHECK(net.loop.until(
        [&] {
            lines.merge(gather(net, net.ue_server));
            return lines.contains("SIP/2.0 487 Text");
        },
        seconds{60}));
    CHECK(first_line(core.receive()) == "ACK sip:bob@home.example SIP/2.0");
}

TEST_CASE(
    "RFC 3261 §16.8, Timer C: a phone that rings for ever is cancelled, and its 487 is a 408 for the caller; a 200 that crosses is a 200") {
    for (const bool answers : {false, true}) {
        ProxyNetwork net;
        net.config.timers.ringing = seconds{1};
        net.core_peer.send(net.from_core("INVITE", net.our_route()), net.core_side);
        const std::string invite = net.ue_server.receive();
        net.ue_client.send(response_text(invite, 180), net.ps);
        CHECK(ProxyNetwork::final_of(net.core_peer).starts_with("SIP/2.0 180"));
        const std::string cancel = net.ue_server.receive();
        CHECK(first_line(cancel).starts_with("CANCEL "));
        CHECK(header(cancel, "Reason") == "SIP;cause=408;text=\"Request Timeout\"");  // RFC 3326
        net.ue_client.send(response_text(invite, answers ? 200 : 487), net.ps);
        const std::string final = net.core_peer.receive();
        CHECK(final.starts_with(answers ? "SIP/2.0 200" : "SIP/2.0 408"));
        if (!answers) CHECK(first_line(net.ue_server.receive()).starts_with("ACK "));
    }
}

TEST_CASE(
    "RFC 3261 §16.9: a phone whose registration ends while it rings: 480 for the caller at once; when it can be told yet, it is") {
    for (const bool tells : {false, true}) {
        ProxyNetwork net;
        net.core_peer.send(net.from_core("INVITE", net.our_route()), net.core_side);
        const std::string invite = net.ue_server.receive();
        net.ue_client.send(response_text(invite, 180), net.ps);
        CHECK(ProxyNetwork::final_of(net.core_peer).starts_with("SIP/2.0 180"));
        if (tells) {
            net.table.find(net.key)->ended = true;  // de-registered: its SAs wait for the last answer
            net.table.changed(net.key);
            const std::string cancel = net.ue_server.receive();
            CHECK(first_line(cancel).starts_with("CANCEL "));
            CHECK(header(cancel, "Reason") == "SIP;cause=480;text=\"Temporarily Unavailable\"");
            net.ue_client.send(response_text(invite, 487), net.ps);
        } else {
            (void)net.table.take_set(*net.table.find(net.key), SetNumber{kSet});
        }
        CHECK(net.core_peer.receive().starts_with("SIP/2.0 480"));
    }
}

TEST_CASE("a caller whose registration ends while it waits: the callee is cancelled, and nothing goes to the caller") {
    ProxyNetwork net;
    net.timers = kFast;
    net.ue_timers = kFastUe;
    net.ue_client.send(net.from_ue("INVITE", "sip:bob@home.example"), net.ps);
    const std::string invite = net.core_peer.receive();
    net.core_peer.send(response_text(invite, 180), net.core_side);
    CHECK(ProxyNetwork::final_of(net.ue_server).starts_with("SIP/2.0 180"));
    (void)net.table.take_set(*net.table.find(net.key), SetNumber{kSet});
    const std::string cancel = net.core_peer.receive();
    CHECK(first_line(cancel) == "CANCEL sip:bob@home.example SIP/2.0");
    CHECK(header(cancel, "Reason") == "SIP;cause=503;text=\"Service Unavailable\"");  // TS 24.229 §5.2.8.1.1
    net.core_peer.send(response_text(cancel, 200), net.core_side);
    net.core_peer.send(response_text(invite, 487), net.core_side);
    CHECK(first_line(net.core_peer.receive()).starts_with("ACK "));
    CHECK_FALSE(net.ue_server.try_receive().has_value());
}

TEST_CASE(
    "RFC 3261 §16.9: a phone that loses its TCP connection while it rings: refused at port_us it has gone, 480; else it may answer on a new one") {
    for (const bool lives : {false, true}) {
        ProxyNetwork net;
        net.timers = kFast;
        net.ue_timers = kFastUe;
        net.table.find(net.key)->transport = sip::Transport::tcp;
        auto listener = sip::open_listening_socket(net.ue_server.endpoint());
        REQUIRE(listener.has_value());
        net.core_peer.send(net.from_core("INVITE", net.our_route()), net.core_side);
        std::string invite;
        {
            Peer phone = Peer::accept(net.loop, *listener);
            invite = phone.receive();
            phone.send(response_text(invite, 180));
            CHECK(ProxyNetwork::final_of(net.core_peer).starts_with("SIP/2.0 180"));
            if (!lives) listener->close();
            phone.reset();
        }
        if (lives) {
            Peer phone = Peer::accept(net.loop, *listener);
            phone.send(response_text(invite, 486));
            CHECK(net.core_peer.receive().starts_with("SIP/2.0 486"));
            CHECK(first_line(phone.receive()).starts_with("ACK "));
        } else {
            CHECK(net.core_peer.receive().starts_with("SIP/2.0 480"));
            net.core_peer.send(net.from_core("ACK", "X-In-Dialog: 1\n"), net.core_side);
            CHECK(nothing_left(net));
        }
    }
}

TEST_CASE(
    "a phone that vanishes: the core gets 408 to its INVITE, nothing late to other requests (RFC 4320), and no transaction stays") {
    ProxyNetwork net;
    net.timers = kFast;
    net.ue_timers = kFastUe;
    net.core_peer.send(net.from_core("INVITE", net.our_route()), net.core_side);
    net.core_peer.send(net.from_core("MESSAGE", net.our_route(), "z9hG4bKmessage"), net.core_side);
    std::map<std::string, int> lines;
    CHECK(net.loop.until(
        [&] {
            lines.merge(gather(net, net.core_peer));
            return lines.contains("SIP/2.0 408 Request Timeout");
        },
        seconds{60}));
    net.core_peer.send(net.from_core("ACK", "X-In-Dialog: 1\n"), net.core_side);
    CHECK(nothing_left(net));
    lines.merge(gather(net, net.core_peer));
    for (const auto& [line, count] : lines) CHECK_MESSAGE((contains(line, " 100 ") || contains(line, " 408 ")), line);
}

TEST_CASE(
    "RFC 3261 §16.7: provisional answers of several branches and their 2xx all reach the caller; RFC 6026 absorbs the INVITE again") {
    ProxyNetwork net;
    net.ue_client.send(net.from_ue("INVITE", "sip:bob@home.example"), net.ps);
    const std::string invite = net.core_peer.receive();
    for (const char* tag : {"fork1", "fork2"}) net.core_peer.send(response_text(invite, 183, tag), net.core_side);
    CHECK(contains(header(ProxyNetwork::final_of(net.ue_server), "To"), "tag=fork1"));
    CHECK(contains(header(net.ue_server.receive(), "To"), "tag=fork2"));
    for (const char* tag : {"fork1", "fork2"}) net.core_peer.send(response_text(invite, 200, tag), net.core_side);
    CHECK(contains(header(net.ue_server.receive(), "To"), "tag=fork1"));
    CHECK(contains(header(net.ue_server.receive(), "To"), "tag=fork2"));
    net.ue_client.send(net.from_ue("INVITE", "sip:bob@home.example"),
                       net.ps);  // a late copy: neither answered nor forwarded
    net.loop.drain(milliseconds{50});
    CHECK_FALSE(net.ue_server.try_receive().has_value());
    CHECK_FALSE(net.core_peer.try_receive().has_value());
}

TEST_CASE("a CANCEL that crosses the 200 changes nothing: the phone gets both, and ends the call itself") {
    ProxyNetwork net;
    net.ue_client.send(net.from_ue("INVITE", "sip:bob@home.example"), net.ps);
    const std::string invite = net.core_peer.receive();
    net.core_peer.send(response_text(invite, 200), net.core_side);
    CHECK(ProxyNetwork::final_of(net.ue_server).starts_with("SIP/2.0 200"));
    net.ue_client.send(net.from_ue("CANCEL", "sip:bob@home.example"), net.ps);
    CHECK(header(net.ue_server.receive(), "CSeq") == "7 CANCEL");
    net.loop.drain(milliseconds{50});
    CHECK_FALSE(net.core_peer.try_receive().has_value());
}

TEST_CASE(
    "PRACK and UPDATE in an early dialog pass in both directions by the dialog's route, and 100rel stays as it is") {
    ProxyNetwork net;
    net.ue_client.send(net.from_ue("INVITE", "sip:bob@home.example", "Require: 100rel, sec-agree\nSupported: 100rel\n"),
                       net.ps);
    const std::string invite = net.core_peer.receive();
    CHECK(header(invite, "Require") == "100rel");
    std::string progress = ProxyNetwork::answer_by_way_of("scscf.home.example", invite, 183);
    progress.insert(progress.find("Content-Length"), "Require: 100rel\r\nRSeq: 1\r\n");
    net.core_peer.send(progress, net.core_side);
    const std::string got = ProxyNetwork::final_of(net.ue_server);
    CHECK(header(got, "RSeq") == "1");
    CHECK(header(got, "Require") == "100rel");
    const std::string route = "RAck: 1 7 INVITE\n" + ProxyNetwork::dialog_route(got, ProxyNetwork::End::caller);
    for (const char* method : {"PRACK", "UPDATE"}) {
        net.ue_client.send(net.from_ue(method, "sip:bob@10.0.0.9", route, std::string("z9hG4bK") + method), net.ps);
        const std::string forwarded = net.core_peer.receive();
        CHECK(first_line(forwarded) == std::string(method) + " sip:bob@10.0.0.9 SIP/2.0");
        CHECK(header(forwarded, "Route") == "<sip:scscf.home.example;lr>");
        CHECK(header(forwarded, "RAck") == "1 7 INVITE");
        net.core_peer.send(response_text(forwarded, 200), net.core_side);
        CHECK(header(net.ue_server.receive(), "CSeq") == std::string("7 ") + method);
    }
    net.core_peer.send(net.from_core("UPDATE", "X-In-Dialog: 1\n" + net.our_route(), "z9hG4bKup"), net.core_side);
    const std::string update = net.ue_server.receive();
    CHECK(first_line(update).starts_with("UPDATE "));
    net.ue_client.send(response_text(update, 200), net.ps);
    CHECK(header(net.core_peer.receive(), "CSeq") == "7 UPDATE");
}
