// Mechanism tls with the real gateway: the two call flows of the feature text, an openssl s_client as the phone, kernel
// TLS underneath.
#include <map>
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

/// A second interface at the address of the first one: another preference, confidentiality demanded, a profile of its
/// own.
constexpr const char* kSecondInterface = R"([[ims-aka-profile]]
name = "second"
protected-server-port = [6110, 6111]
start-protected-client-port = 6210
end-protected-client-port = 6213
[[sip-interface]]
realm-id = "second"
sec-agree-feature = true
sec-agree-pref = "ipsec3gpp"
confidentiality = "required"
[[sip-interface.sip-ports]]
address = "10.1.0.1"
port = 5070
ims-aka-profile = "second"
)";

std::string ask_at(Lab& lab, int port, const RawRegister& request) {
    RawPeer peer(lab.network.ue, RawPeer::Kind::udp, request.access.ue_port(request.port),
                 request.access.gateway_port(port));
    peer.send(request.text());
    return peer.receive_until("\r\n\r\n");
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

    TEST_CASE(
        "A-17, A-11: a 494, over TLS or in clear before it, names the list that is compared: who mirrors it gets through") {
        TlsLab tls({.pref = "tls-ipsec3gpp"});
        auto& lab = *tls.lab;
        DigestPhone phone{{.is_v6 = false, .is_tcp = false}};
        RawPeer clear(lab.network.ue, RawPeer::Kind::udp, phone.access.ue_port(5070), phone.access.gateway_port(5060));
        clear.send(phone.request("UDP", "", "Require: sec-agree\r\nSecurity-Client: digest\r\n"));
        const auto refused = clear.receive_until("\r\n\r\n");
        INFO(refused);
        REQUIRE(status_of(refused) == 494);
        CHECK(refused.find("Warning: 399 gmgate \"") != std::string::npos);
        const auto list = between(refused, "Security-Server: ", "\r\n");

        const auto connection = tls.connect(phone.access, "-tls1_3");
        const auto mark = lab.core_mark();
        const auto shortened = ask_over(*connection, phone.request("TLS", "", "Security-Verify: tls\r\n"));
        INFO(shortened);
        CHECK(status_of(shortened) == 494);
        CHECK(shortened.find("Security-Server: " + list) != std::string::npos);
        CHECK(lab.core_received(mark).empty());
        const std::string mirrored = "Security-Verify: " + list + "\r\n";
        const auto challenge = ask_over(*connection, phone.request("TLS", "", mirrored));
        REQUIRE(status_of(challenge) == 401);
        CHECK(status_of(ask_over(*connection, phone.request("TLS", between(challenge, "nonce=\"", "\""), mirrored))) ==
              200);
    }

    TEST_CASE("SEED-29, G-8: over TLS a refresh with another realm gets 403, the registration stays") {
        TlsLab tls({.pref = "tls-ipsec3gpp"});
        auto& lab = *tls.lab;
        DigestPhone phone{{.is_v6 = true, .is_tcp = false}};
        const auto connection = tls.connect(phone.access, "-tls1_3");
        const auto nonce = between(ask_over(*connection, phone.request("TLS", "", "")), "nonce=\"", "\"");
        REQUIRE(status_of(ask_over(*connection, phone.request("TLS", nonce, ""))) == 200);
        auto other = phone.request("TLS", nonce, "");
        const std::string realm = "realm=\"" + std::string(kRealm);
        other.replace(other.find(realm), realm.size(), "realm=\"other.example");
        const auto mark = lab.core_mark();
        const auto refused = ask_over(*connection, other);
        INFO(refused);
        CHECK(status_of(refused) == 403);
        CHECK(refused.find("realm in Authorization is not that of the REGISTER") != std::string::npos);
        CHECK(lab.core_received(mark).empty());
        // A Security-Verify where nothing was agreed costs nothing (G-28).
        CHECK(status_of(ask_over(*connection, phone.request("TLS", nonce, "Security-Verify: tls\r\n"))) != 494);
        CHECK(lab.core_received(mark, "REGISTER").at(0).find("integrity-protected=\"tls-yes\"") != std::string::npos);
    }

    TEST_CASE("A-24: two interfaces of different policy at one address: each phone has that of the one it came to") {
        TlsLab tls({.pref = "tls-ipsec3gpp", .more_sections = kSecondInterface});
        auto& lab = *tls.lab;
        RawRegister both;
        both.security_client = SecurityClient{}.text() + ", tls";
        CHECK(ask_at(lab, 5060, both).find("Security-Server: tls\r\n") != std::string::npos);
        both.call_id = unique_word("raw-");
        const auto at_second = ask_at(lab, 5070, both);
        INFO(at_second);
        CHECK(at_second.find("Security-Server: ipsec-3gpp;") != std::string::npos);
        CHECK(at_second.find("port-s=6110") != std::string::npos);
        RawRegister open;
        open.user = 2;
        open.security_client =
            SecurityClient{.ealg = "null", .spi_c = 22221, .spi_s = 22222, .port_c = 5072, .port_s = 5073}.text();
        CHECK(status_of(ask_at(lab, 5070, open)) == 494);  // confidentiality is required there
        open.call_id = unique_word("raw-");
        CHECK(status_of(ask_at(lab, 5060, open)) == 401);

        Phone first(lab, {.user = 3, .offer = "hmac-sha-1-96/null"});
        first.demand_registered();
        Program second({.command = {lab.programs().gmue, "run", "--gateway", "10.1.0.1:5070", "--index", "4", "--offer",
                                    "hmac-sha-1-96/aes-cbc"},
                        .name = "gmue at the second interface",
                        .network = &lab.network.ue});
        second.wait_for_text("\"registered\"");
        const auto text = unique_word("across-");
        CHECK(first.message(impu_of_user(4), text) == 200);
        second.wait_for_text(text);
        second.write_line("message " + first.impu() + " " + text + "-back");
        first.await_message(text + "-back");
        const auto shown = nlohmann::json::parse(
            run_program({.command = {lab.programs().gmctl, "--socket", lab.control_socket(), "--json", "registrations"},
                         .name = "gmctl"}));
        INFO(shown.dump());
        std::map<std::string, std::string> realms;
        for (const auto& row : shown.at("registrations")) realms[row.value("impi", "")] = row.value("realm", "");
        CHECK(realms[impi_of_user(3)] == "access");
        CHECK(realms[impi_of_user(4)] == "second");
    }
}
