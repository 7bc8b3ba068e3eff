// Mechanism tls with the real gateway: the two call flows of the feature text, an openssl s_client as the phone, kernel
// TLS underneath.
#include <memory>

#include <doctest/doctest.h>

#include "tests/integration/tls_lab.h"

using namespace gmgate::test;

namespace {

constexpr const char* kRealm = kHomeDomain;
constexpr const char* kUser = kDigestUser;
constexpr const char* kPassword = kDigestPassword;

std::string md5(const std::string& text) { return run_program({.command = {"md5sum"}}, text).substr(0, 32); }

std::string between(const std::string& text, const std::string& from, const std::string& to) {
    const auto at = text.find(from);
    if (at == std::string::npos) return {};
    const auto begin = at + from.size();
    return text.substr(begin, text.find(to, begin) - begin);
}

/// REGISTERs of one digest user, numbered.
struct DigestPhone {
    Access access;
    std::string call_id = unique_word("tls-");
    int cseq = 0;

    std::string request(const std::string& transport, const std::string& nonce, const std::string& sec_agree,
                        int expires = 600) {
        const std::string uri = std::string("sip:") + kRealm, host = access.ue_port(40000);
        std::string response;
        if (!nonce.empty())
            response = md5(md5(std::string(kUser) + ":" + kRealm + ":" + kPassword) + ":" + nonce +
                           ":00000001:0a4f113b:auth:" + md5("REGISTER:" + uri));
        ++cseq;
        return "REGISTER " + uri + " SIP/2.0\r\nVia: SIP/2.0/" + transport + " " + host +
               ";branch=" + unique_word("z9hG4bK") + ";rport\r\nMax-Forwards: 70\r\nFrom: <sip:" + kUser +
               ">;tag=1\r\nTo: <sip:" + kUser + ">\r\nCall-ID: " + call_id + "\r\nCSeq: " + std::to_string(cseq) +
               " REGISTER\r\nContact: <sip:rcs@" + host + ";transport=tls>;expires=" + std::to_string(expires) +
               "\r\nSupported: path\r\nAuthorization: Digest uri=\"" + uri + "\",username=\"" + kUser +
               "\",response=\"" + response + "\",realm=\"" + kRealm + "\",nonce=\"" + nonce + "\"" +
               (nonce.empty() ? "" : ",qop=auth,nc=00000001,cnonce=\"0a4f113b\",algorithm=MD5") + "\r\n" + sec_agree +
               "Content-Length: 0\r\n\r\n";
    }
};

/// The next response on the connection: its lines up to the empty one.
std::string response_on(Program& connection, std::size_t from) {
    const auto status = connection.wait_for_text("SIP/2.0 ", from);
    connection.wait_for_line(
        [](const std::string& line) {
            return line.find("Content-Length") != std::string::npos || line.find("content-length") != std::string::npos;
        },
        "Content-Length", status.index);
    std::string text;
    for (const auto& line : connection.lines(status.index)) text += line + "\n";
    return text;
}

std::string ask_over(Program& connection, const std::string& request) {
    const auto from = connection.line_count();
    connection.write(request);
    return response_on(connection, from);
}

const std::string kSeedClient =
    "Proxy-Require: sec-agree\r\nRequire: sec-agree\r\n"
    "Security-Client: ipsec-3gpp;alg=hmac-md5-96;ealg=aes-cbc;prot=esp;mod=trans;spi-c=8765423;port-c=7524;spi-s=1234563;port-s=1358, "
    "ipsec-3gpp;alg= hmac-sha-1-96;ealg=aes-cbc;prot=esp;mod=trans;spi-c=8765423;port-c=7524;spi-s=1234563;port-s=1358, tls\r\n";

void check_during_registration(const Access& access, const std::string& version) {
    TlsLab tls({.pref = "tls-ipsec3gpp"});
    auto& lab = *tls.lab;
    DigestPhone phone{access};

    // (1) REGISTER in clear, offering tls; (2) the core sees no Security-Client and no integrity-protected; (3) 401
    // with tls
    RawPeer clear(lab.network.ue, RawPeer::Kind::udp, access.ue_port(5070), access.gateway_port(5060));
    auto mark = lab.core_mark();
    clear.send(phone.request("UDP", "", kSeedClient));
    const auto challenge = clear.receive_until("\r\n\r\n");
    INFO(challenge);
    REQUIRE(status_of(challenge) == 401);
    CHECK(challenge.find("Security-Server: tls\r\n") != std::string::npos);
    const auto first = lab.core_received(mark, "REGISTER").at(0);
    for (const auto* absent : {"Security-Client", "Proxy-Require", "sec-agree", "integrity-protected"})
        CHECK(first.find(absent) == std::string::npos);
    const auto nonce = between(challenge, "nonce=\"", "\"");

    // (4) REGISTER over TLS with Security-Verify; (5) the core sees tls-pending
    const auto connection = tls.connect(access, version);
    mark = lab.core_mark();
    const auto accepted = ask_over(
        *connection,
        phone.request("TLS", nonce, "Proxy-Require: sec-agree\r\nRequire: sec-agree\r\nSecurity-Verify: tls\r\n"));
    INFO(accepted);
    CHECK(status_of(accepted) == 200);
    const auto second = lab.core_received(mark, "REGISTER").at(0);
    CHECK(second.find("integrity-protected=\"tls-pending\"") != std::string::npos);
    CHECK(second.find("Security-Verify") == std::string::npos);

    // The kernel carries it, in both directions.
    CHECK(tls.tls_stat("TlsCurrTxSw") == 1);
    CHECK(tls.tls_stat("TlsCurrRxSw") == 1);

    // The refresh says tls-yes, and one with another private identity gets 403.
    mark = lab.core_mark();
    CHECK(status_of(ask_over(
              *connection,
              phone.request("TLS", nonce,
                            "Proxy-Require: sec-agree\r\nRequire: sec-agree\r\nSecurity-Verify: tls\r\n"))) != 494);
    CHECK(lab.core_received(mark, "REGISTER").at(0).find("integrity-protected=\"tls-yes\"") != std::string::npos);
    auto forged =
        phone.request("TLS", nonce, "Proxy-Require: sec-agree\r\nRequire: sec-agree\r\nSecurity-Verify: tls\r\n");
    forged.replace(forged.find("username=\"rcs"), 13, "username=\"eve");
    CHECK(status_of(ask_over(*connection, forged)) == 403);

    // A phone with SAs sends a MESSAGE to it: one MESSAGE comes down the TLS connection.
    Phone sender(lab, {.user = 1, .is_v6 = access.is_v6});
    sender.demand_registered();
    const auto from = connection->line_count();
    sender.start_message(std::string("sip:") + kUser, unique_word("to-tls-"));
    connection->wait_for_text("MESSAGE sip:rcs@", from);
    connection->wait_for_text("P-Called-Party-ID: <sip:" + std::string(kUser),
                              from);  // the body has no line end to wait for
}

}  // namespace

TEST_SUITE("tls") {
    TEST_CASE("SEED, B-94, C-47: TLS session set-up during registration, TLS 1.3, IPv4, in the kernel") {
        check_during_registration({.is_v6 = false, .is_tcp = false}, "-tls1_3");
    }
    TEST_CASE("SEED, B-94, C-47: TLS session set-up during registration, TLS 1.2, IPv6, in the kernel") {
        check_during_registration({.is_v6 = true, .is_tcp = false}, "-tls1_2");
    }

    TEST_CASE("SEED, B-95: TLS session set-up prior to registration: no sec-agree header anywhere") {
        TlsLab tls({.pref = "ipsec3gpp-tls"});
        auto& lab = *tls.lab;
        DigestPhone phone{{.is_v6 = false, .is_tcp = false}};
        const auto connection = tls.connect(phone.access, "-tls1_3");
        auto mark = lab.core_mark();
        const auto challenge = ask_over(*connection, phone.request("TLS", "", ""));
        REQUIRE(status_of(challenge) == 401);
        CHECK(challenge.find("Security-Server") == std::string::npos);
        CHECK(lab.core_received(mark, "REGISTER").at(0).find("integrity-protected") == std::string::npos);
        mark = lab.core_mark();
        CHECK(status_of(ask_over(*connection, phone.request("TLS", between(challenge, "nonce=\"", "\""), ""))) == 200);
        CHECK(lab.core_received(mark, "REGISTER").at(0).find("integrity-protected=\"tls-pending\"") !=
              std::string::npos);
        connection->kill();
        CHECK(eventually([&] { return tls.tls_stat("TlsCurrTxSw") == 0; }));
    }

    TEST_CASE("G-10, B-99: an unbound TLS connection carries REGISTER only, and bytes that are no TLS harm nobody") {
        TlsLab tls({.pref = "ipsec3gpp-tls"});
        auto& lab = *tls.lab;
        const Access access{.is_v6 = false, .is_tcp = false};
        const auto connection = tls.connect(access, "-tls1_3");
        const auto mark = lab.core_mark();
        const auto answer = ask_over(
            *connection,
            "MESSAGE sip:a@b SIP/2.0\r\nVia: SIP/2.0/TLS 10.1.0.2:40000;branch=z9hG4bKx1\r\nMax-Forwards: 70\r\nFrom: <sip:a@b>;tag=1\r\n"
            "To: <sip:a@b>\r\nCall-ID: unbound\r\nCSeq: 1 MESSAGE\r\nContent-Length: 0\r\n\r\n");
        CHECK(status_of(answer) == 403);
        CHECK(lab.core_received(mark).empty());
        RawPeer noise(lab.network.ue, RawPeer::Kind::tcp, access.ue_port(5071), access.gateway_port(5061));
        REQUIRE(noise.connects(kPatience));
        noise.send("this is no TLS record\r\n\r\n");
        lab.gateway().wait_for_text("tls-handshake-failed");
    }
}
