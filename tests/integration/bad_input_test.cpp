// What strangers and broken phones send: each gets the answer of its clause, leaves nothing behind, and nothing reaches
// the core that should not. Ref: RFC 3329 §2.3.1, TS 24.229 §5.2.2, TS 33.226 §4.2.2.3 (bidding down).
#include <algorithm>
#include <memory>

#include <doctest/doctest.h>

#include "tests/integration/scene.h"

using namespace gmgate::test;

namespace {

/// A lab for the whole suite: these tests leave nothing behind, and each of them checks that.
Lab& shared_lab() {
    static Lab lab(plain_lab());
    return lab;
}

struct Answer {
    std::string text;
    int status;
    std::vector<std::string> core;  ///< what the core received meanwhile
};

Answer answer_to(const RawRegister& request) {
    auto& lab = shared_lab();
    const auto before = lab.core_mark();
    Answer answer;
    answer.text = ask(lab, request);
    answer.status = status_of(answer.text);
    answer.core = lab.core_received(before);
    CHECK(count_sas(lab.network.gw) == 0);
    return answer;
}

std::string send_text(const std::string& text, const Access& access, int port = 5070) {
    auto& lab = shared_lab();
    RawPeer peer(lab.network.ue, access.is_tcp ? RawPeer::Kind::tcp : RawPeer::Kind::udp, access.ue_port(port),
                 access.gateway_port(5060));
    if (access.is_tcp) REQUIRE(peer.connects(kPatience));
    peer.send(text);
    return peer.receive_until("\r\n\r\n");
}

void check_unusable(const std::string& security_client) {
    RawRegister request;
    request.security_client = security_client;
    const auto answer = answer_to(request);
    INFO(answer.text);
    CHECK(answer.status == 494);
    CHECK(answer.text.find("Security-Server: ") != std::string::npos);
    CHECK(answer.core.empty());
}

}  // namespace

TEST_SUITE("bad-input") {
    TEST_CASE("A-11: an offer without a usable algorithm gets 494 with Security-Server, and the core hears nothing") {
        SecurityClient offer;
        offer.alg = "hmac-sha-512";
        check_unusable(offer.text());
        offer.alg = "null";
        offer.ealg = "null";
        check_unusable(offer.text());
        offer = {};
        offer.ealg = "rot13";
        check_unusable(offer.text());
    }

    TEST_CASE("an unknown mechanism alone gets 494") { check_unusable("carrier-pigeon; q=0.9"); }

    TEST_CASE("ports or SPIs that cannot be, an offer that lacks one, and noise get an error and nothing else") {
        for (const auto* text :
             {"ipsec-3gpp; alg=hmac-sha-1-96; spi-c=0; spi-s=2222; port-c=5062; port-s=5063",
              "ipsec-3gpp; alg=hmac-sha-1-96; spi-c=4444444444; spi-s=2222; port-c=5062; port-s=5063",
              "ipsec-3gpp; alg=hmac-sha-1-96; spi-c=1111; spi-s=2222; port-c=99999; port-s=5063",
              "ipsec-3gpp; alg=hmac-sha-1-96; spi-c=1111; spi-s=2222; port-c=0; port-s=5063",
              "ipsec-3gpp; alg=hmac-sha-1-96; spi-s=2222; port-c=5062; port-s=5063", "ipsec-3gpp; alg=hmac-sha-1-96",
              ";;;", "ipsec-3gpp; alg=\""}) {
            RawRegister request;
            request.security_client = text;
            const auto answer = answer_to(request);
            INFO(text << "\n" << answer.text);
            CHECK((answer.status == 400 || answer.status == 494));
            CHECK(answer.core.empty());
        }
    }

    TEST_CASE("a REGISTER without any security agreement is not let through where ipsec-3gpp is demanded") {
        RawRegister request;
        request.require.clear();
        const auto answer = answer_to(request);
        INFO(answer.text);
        CHECK((answer.status == 421 || answer.status == 403 || answer.status == 494));
        CHECK(answer.core.empty());
    }

    TEST_CASE("a 401 from the core without ck and ik becomes 504, and no SA is made") {
        RawRegister request;
        request.security_client = SecurityClient{}.text();
        request.more_headers = "X-Gmcore-Do: omit-keys\r\n";
        const auto answer = answer_to(request);
        INFO(answer.text);
        CHECK(answer.status == 504);
        CHECK(answer.text.find("WWW-Authenticate") == std::string::npos);
        CHECK(answer.core.size() == 1);
    }

    TEST_CASE("a refusal of the core is passed on, and no SA is made") {
        RawRegister request;
        request.security_client = SecurityClient{}.text();
        request.more_headers = "X-Gmcore-Do: refuse=403\r\n";
        const auto answer = answer_to(request);
        INFO(answer.text);
        CHECK(answer.status == 403);
        CHECK(answer.text.find("Security-Server") == std::string::npos);
    }

    TEST_CASE("malformed SIP gets 400, over UDP and TCP, IPv4 and IPv6") {
        for (const bool is_v6 : {false, true})
            for (const bool is_tcp : {false, true}) {
                const Access access{is_v6, is_tcp};
                RawRegister good;
                good.access = access;
                good.port = 5070;
                auto text = good.text();
                const auto from = text.find("CSeq: 1 REGISTER");
                text.replace(from, 16, "CSeq: x REGISTER");
                const auto answer = send_text(text, access);
                INFO(answer);
                CHECK(status_of(answer) == 400);
            }
    }

    TEST_CASE("noise is dropped and the gateway goes on serving") {
        auto& lab = shared_lab();
        RawPeer peer(lab.network.ue, RawPeer::Kind::udp, "10.1.0.2:5071", "10.1.0.1:5060");
        std::string every_octet;
        for (int c = 0; c < 256; ++c) every_octet.push_back(static_cast<char>(c));
        for (const auto& noise : {std::string("\r\n\r\n"), std::string("\0", 1), every_octet, std::string(9000, 'A'),
                                  std::string("SIP/2.0 200 OK\r\n\r\n"), std::string("REGISTER\r\n"),
                                  std::string("INVITE sip:x SIP/2.0\r\n\r\n")})
            peer.send(noise);
        RawPeer stream(lab.network.ue, RawPeer::Kind::tcp, "[fd01::2]:5071", "[fd01::1]:5060");
        REQUIRE(stream.connects(kPatience));
        stream.send(every_octet + "\r\n\r\n");
        check_unusable("carrier-pigeon");
        CHECK(lab.gateway().is_running());
    }

    TEST_CASE("other requests on the unprotected port do not reach the core") {
        auto& lab = shared_lab();
        const auto before = lab.core_mark();
        RawRegister shape;
        auto text = shape.text();
        for (std::size_t at; (at = text.find("REGISTER")) != std::string::npos;) text.replace(at, 8, "MESSAGE");
        const auto answer = send_text(text, {}, 5066);
        INFO(answer);
        CHECK(status_of(answer) >= 400);
        CHECK(status_of(answer) < 500);
        CHECK(lab.core_received(before).empty());
    }

    TEST_CASE("nothing that was sent here left an SA or ended the gateway") {
        auto& lab = shared_lab();
        CHECK(count_sas(lab.network.gw) == 0);
        CHECK(lab.stop_gateway() == 0);
    }
}
