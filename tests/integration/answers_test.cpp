// Where answers go that nobody protects: to the port that Via names, whoever makes them (the gateway, its SIP layer,
// the core), and to a peer that has ended its sending side.
#include <csignal>
#include <functional>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <fmt/format.h>

#include "tests/integration/tls_lab.h"
#include "tests/support/raw_peer.h"
#include "tests/support/tls_client.h"

using namespace gmgate::test;

namespace {

/// A request in clear, and the answers that it must bring.
struct Case {
    std::string method, uri, more;
    std::vector<int> answers;
    std::size_t filling = 0;  ///< octets of a header field nobody knows
};

std::string request_text(const Case& one, const std::string& transport, const std::string& sent_by,
                         std::string_view rport) {
    std::string more = one.more;
    if (one.filling != 0) more += "X-Filling: " + std::string(one.filling, 'x') + "\r\n";
    return fmt::format(
        "{0} {1} SIP/2.0\r\nVia: SIP/2.0/{2} {3}{4};branch={5}\r\nMax-Forwards: 70\r\nFrom: <sip:a@b>;tag=1\r\nTo: <{1}>\r\n"
        "Call-ID: {5}\r\nCSeq: 1 {0}\r\nContact: <sip:{3}>\r\n{6}Content-Length: 0\r\n\r\n",
        one.method, one.uri, transport, sent_by, rport, unique_word("z9hG4bK"), more);
}

/// What comes to `peer`, without copies, until one of them is final.
std::vector<int> answers_at(RawPeer& peer) {
    std::vector<int> seen;
    while (seen.empty() || seen.back() < 200) {
        const auto text = peer.receive();
        if (!text) break;
        if (const int status = status_of(*text); seen.empty() || seen.back() != status) seen.push_back(status);
    }
    return seen;
}

std::vector<Case> cases() {
    const std::string agreement = "Security-Client: " + SecurityClient{}.text() + "\r\n";
    return {{"OPTIONS", "sip:x@y", {}, {403}},
            {"INVITE", "sip:x@y", {}, {403}},
            {"MESSAGE", "sip:x@y", {}, {403}},
            {"MESSAGE", "sip:x@y", "Require: sec-agree\r\n", {494}},
            {"CANCEL", "sip:x@y", {}, {481}},                  // of the SIP layer
            {"BYE", "sip:x@y", "Max-Forwards: 1\r\n", {400}},  // twice
            {"OPTIONS", "sip:x@y", {}, {513}, 20000},          // more than a stranger may send
            {"REGISTER", "sip:x", agreement, {403}},           // of the core, which knows nobody of that name
            {"INVITE", "urn:service:sos", {}, {100, 404}}};    // it knows no emergency centre
}

}  // namespace

TEST_SUITE("core-side") {
    TEST_CASE("RFC 3261 §18.2.2: every answer in clear goes to the port in Via, to the source port only with rport") {
        Lab lab(plain_lab());
        int port = 5070;
        for (const bool is_v6 : {false, true}) {
            const Access access{is_v6, false};
            for (const Case& one : cases()) {
                const auto in_via = access.ue_port(++port), from = access.ue_port(++port);
                RawPeer named(lab.network.ue, RawPeer::Kind::udp, in_via, access.gateway_port(5060)),
                    source(lab.network.ue, RawPeer::Kind::udp, from, access.gateway_port(5060));
                CAPTURE(one.method);
                CAPTURE(one.more);
                CAPTURE(from);
                source.send(request_text(one, "UDP", in_via, ""));
                CHECK(answers_at(named) == one.answers);
                source.send(request_text(one, "UDP", in_via, ";rport"));
                CHECK(answers_at(source) == one.answers);
            }
        }
    }

    TEST_CASE("b23: a phone ends its side of a TLS connection and still gets the answer that is due, IPv4 and IPv6") {
        TlsLab tls;
        Lab& lab = *tls.lab;
        for (const bool is_v6 : {false, true})
            for (const int version : {0x0303, 0x0304}) {
                CAPTURE(is_v6);
                CAPTURE(version);
                TlsClient client(version);
                const Access access{is_v6, true};
                const auto connection = client.connect(lab.network.ue, access.gateway_port(5061));
                REQUIRE(connection->handshake());
                const auto mark = lab.core_mark();
                ::kill(lab.core().pid(), SIGSTOP);
                connection->write(request_text({"REGISTER", "sip:x", {}, {}}, "TLS", access.ue_port(5070), ""));
                connection->close_notify();
                ::kill(lab.core().pid(), SIGCONT);
                const auto answer = connection->read_until("\r\n\r\n");
                CHECK_MESSAGE(status_of(answer) == 403, answer);  // the core's
                CHECK(lab.core_received(mark, "REGISTER").size() >= 1);
                CHECK(connection->is_ended_by_peer());
            }
    }
}
