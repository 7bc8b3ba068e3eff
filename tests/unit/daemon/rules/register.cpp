// REGISTER through the header rules: the flow of TS 24.228 §6.2 (R1-1 and R1-2), both flows of the feature text, and
// hostile copies.
#include <vector>

#include <fmt/format.h>

#include "base/random.h"
#include "daemon/rules/header_rules.h"
#include "tests/unit/daemon/proxy/support.h"

using namespace gmgate;
using namespace gmgate::daemon;
using namespace gmgate::daemon::test;

namespace {

RegisterToCore rules_24228() {
    RegisterToCore rules;
    rules.received = udp_flow("[5555::1:2:3:4]:5060", "[5555::aaa:bbb:ccc:ddd]:5060");
    rules.via_host = "pcscf1.visited1.net";
    rules.branch = "z9hG4bK240f34.1";
    rules.path_uri = "sip:term@pcscf1.visited1.net;lr";
    rules.visited_network_id = "Visited ProxyNetwork Number 1";
    rules.orig_ioi = "visited1.net";
    rules.integrity_protected = "no";
    return rules;
}

std::string to_core(std::string_view text, RegisterToCore rules = rules_24228()) {
    const auto message = parse(text);
    rules.credentials = sip::RequestCredentials::read(*message);
    const auto result = register_to_core(*message, rules);
    REQUIRE(result.has_value());
    return without_icid(*result);
}

/// A REGISTER with these lines between CSeq and Content-Length.
std::string register_with(std::string_view lines) {
    return crlf(fmt::format(R"(
REGISTER sip:registrar.home1.net SIP/2.0
Via: SIP/2.0/UDP [5555::aaa:bbb:ccc:ddd];branch=z9hG4bKnashds7
Max-Forwards: 70
From: <sip:user1_public1@home1.net>;tag=4fa3
To: <sip:user1_public1@home1.net>
Call-ID: apb03a0s09dkjdfglkj49111
CSeq: 1 REGISTER
{}Content-Length: 0

)",
                            lines));
}

std::string challenge_with(std::string_view lines) {
    return crlf(fmt::format(R"(
SIP/2.0 401 Unauthorized
Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKours, SIP/2.0/UDP [5555::aaa:bbb:ccc:ddd];branch=z9hG4bKnashds7
From: <sip:user1_public1@home1.net>;tag=4fa3
To: <sip:user1_public1@home1.net>;tag=5ef4
Call-ID: apb03a0s09dkjdfglkj49111
CSeq: 1 REGISTER
{}Content-Length: 0

)",
                            lines));
}

std::string to_ue(std::string_view text, std::optional<std::string> security_server = {}) {
    const auto message = parse(text);
    return register_response_to_ue(*message, security_server);
}

}  // namespace

TEST_CASE("C-11…C-19: the REGISTER of TS 24.228 R1-1a reaches the core as R1-1c") {
    const std::string received = crlf(R"(
REGISTER sip:registrar.home1.net SIP/2.0
Via: SIP/2.0/UDP [5555::aaa:bbb:ccc:ddd];comp=sigcomp;branch=z9hG4bKnashds7
Max-Forwards: 70
P-Access-Network-Info: 3GPP-UTRAN-TDD; utran-cell-id-3gpp=234151D0FCE11
From: <sip:user1_public1@home1.net>;tag=4fa3
To: <sip:user1_public1@home1.net>
Contact: <sip:[5555::aaa:bbb:ccc:ddd];comp=sigcomp>;expires=600000
Call-ID: apb03a0s09dkjdfglkj49111
Authorization: Digest username="user1_private@home1.net", realm="registrar.home1.net", nonce="", uri="sip:registrar.home1.net", response=""
Security-Client: ipsec-3gpp; alg=hmac-sha-1-96; spi-c=23456789; spi-s=12345678; port-c=2468; port-s=1357
Require: sec-agree
Proxy-Require: sec-agree
CSeq: 1 REGISTER
Supported: path
Content-Length: 0

)");
    CHECK(to_core(received) == crlf(R"(
REGISTER sip:registrar.home1.net SIP/2.0
Via: SIP/2.0/UDP pcscf1.visited1.net;branch=z9hG4bK240f34.1
Via: SIP/2.0/UDP [5555::aaa:bbb:ccc:ddd];comp=sigcomp;branch=z9hG4bKnashds7
Max-Forwards: 69
P-Access-Network-Info: 3GPP-UTRAN-TDD; utran-cell-id-3gpp=234151D0FCE11
From: <sip:user1_public1@home1.net>;tag=4fa3
To: <sip:user1_public1@home1.net>
Contact: <sip:[5555::aaa:bbb:ccc:ddd];comp=sigcomp>;expires=600000
Call-ID: apb03a0s09dkjdfglkj49111
Authorization: Digest username="user1_private@home1.net", realm="registrar.home1.net", nonce="", uri="sip:registrar.home1.net", response="", integrity-protected="no"
Require: path
CSeq: 1 REGISTER
Supported: path
Content-Length: 0
Path: <sip:term@pcscf1.visited1.net;lr>
P-Visited-Network-ID: "Visited ProxyNetwork Number 1"
P-Charging-Vector: icid-value="ICID";orig-ioi=visited1.net

)"));
}

TEST_CASE("feature text, flow 1 (2): with tls chosen there is no integrity-protected, and nothing of sec-agree") {
    auto rules = rules_24228();
    rules.integrity_protected.reset();
    const std::string text = to_core(
        register_with(
            "Proxy-Require:sec-agree\n"
            "Security-Client: ipsec-3gpp;alg=hmac-md5-96;ealg=aes-cbc;prot=esp;mod=trans;spi-c=8765423;port-c=7524;spi-s=1234563;port-s=1358, "
            "ipsec-3gpp;alg= hmac-sha-1-96;ealg=aes-cbc;prot=esp;mod=trans;spi-c=8765423;port-c=7524;spi-s=1234563;port-s=1358, tls\n"
            "Authorization: Digest uri=\"sip:ims.mnc007.mcc262.3gppnetwork.org\",username=\"262073900320132@ims.mnc007.mcc262.3gppnetwork.org\","
            "response=\"\",realm=\"ims.mnc007.mcc262.3gppnetwork.org\",nonce=\"\"\n"),
        rules);
    CHECK(contains(text, "realm=\"ims.mnc007.mcc262.3gppnetwork.org\", nonce=\"\"\r\n"));
    CHECK_FALSE(contains(lower(text), "integrity-protected"));
    CHECK_FALSE(contains(lower(text), "sec-agree"));
    CHECK_FALSE(contains(lower(text), "security-client"));
    CHECK_FALSE(contains(lower(text), "proxy-require"));
}

TEST_CASE("C-21: the bare form of the feature text is a switch") {
    auto rules = rules_24228();
    rules.integrity_protected = "tls-pending";
    rules.bare_integrity_protected = true;
    const std::string text = to_core(
        register_with("Authorization: Digest username=\"a\",algorithm=AKAv1-MD5,response=\"3779ff40\"\n"), rules);
    CHECK(contains(text, "response=\"3779ff40\", integrity-protected=tls-pending\r\n"));
}

TEST_CASE("H-2, C-17: no spelling of integrity-protected survives, whoever wrote it") {
    auto rules = rules_24228();
    rules.integrity_protected = "yes";
    const std::vector<std::string> hostile{
        R"(Digest username="a", integrity-protected=tls-yes, response="r")",
        R"(Digest integrity-protected="yes", username="a", response="r")",
        R"(Digest username="a", Integrity-Protected = "yes", response="r")",
        R"(Digest username="a", integrity-protected="yes", integrity-protected="yes", response="r", integrity-protected=no)",
        R"(Digest integrity-protected="yes")",
        R"(Digest username="a", INTEGRITY-PROTECTED	=	tls-yes)",
        "Digest username=\"a\",\r\n integrity-protected\r\n =\"yes\", response=\"r\"",
        R"(Digest username="a" integrity-protected="yes" response="r")",
        R"(Digest username="a, integrity-protected=yes)",
        R"(Digest username="a", , integrity-protected="yes",, response="r",)",
    };
    for (const std::string& value : hostile) {
        CAPTURE(value);
        const std::string ours = "integrity-protected=\"yes\"";
        std::string text = lower(to_core(register_with("Authorization: PLACE\n")
                                             .replace(register_with("Authorization: PLACE\n").find("PLACE"), 5, value),
                                         rules));
        if (const auto at = text.find(ours); at != std::string::npos)
            text.erase(at, ours.size());  // the one that we set
        CHECK_FALSE(contains(text, "integrity-protected"));
    }
    SUBCASE("of several Authorization fields none passes") {
        const std::string text =
            to_core(register_with("Authorization: Bearer abc, integrity-protected=yes\n"
                                  "Authorization: Digest username=\"a\", response=\"r\"\n"
                                  "Authorization: Digest username=\"b\", integrity-protected=\"yes\"\n"),
                    rules);
        CHECK_FALSE(contains(text, "Authorization"));
        CHECK_FALSE(contains(text, "integrity-protected"));
    }
    SUBCASE("no Authorization is invented") {
        CHECK_FALSE(contains(to_core(register_with(""), rules), "Authorization"));
    }
}

TEST_CASE("H-2: what only the network may say does not pass") {
    const std::string text = to_core(
        register_with("Path: <sip:evil@192.0.2.66;lr>\n"
                      "P-Visited-Network-ID: \"free roaming\"\n"
                      "P-Charging-Vector: icid-value=mine\n"
                      "P-Charging-Function-Addresses: ccf=192.0.2.66\n"
                      "P-Asserted-Identity: <sip:boss@home1.net>\n"
                      "P-Asserted-Service: urn:x\n"
                      "P-Served-User: <sip:boss@home1.net>\n"
                      "p-user-database: <aaa://192.0.2.66>\n"
                      "P-Access-Network-Info: 3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=1, IEEE-802.11;Network-Provided\n"));
    CHECK_FALSE(contains(text, "evil"));
    CHECK_FALSE(contains(text, "free roaming"));
    CHECK_FALSE(contains(text, "192.0.2.66"));
    CHECK_FALSE(contains(text, "boss"));
    CHECK_FALSE(contains(text, "icid-value=mine"));
    CHECK_FALSE(contains(lower(text), "network-provided"));
    CHECK(contains(text, "P-Access-Network-Info: 3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=1\r\n"));
    CHECK(contains(text, "Path: <sip:term@pcscf1.visited1.net;lr>\r\n"));
}

TEST_CASE("A-18, A-19, G-30: other option tags stay, sec-agree and mediasec go, path is merged") {
    CHECK(contains(to_core(register_with("Require: gruu, sec-agree\nProxy-Require: sec-agree,mediasec , foo\n")),
                   "Require: gruu, path\r\nProxy-Require: foo\r\n"));
    CHECK(contains(to_core(register_with("Require: Path\n")), "Require: Path\r\n"));
    const std::string none = to_core(register_with(""));
    CHECK(contains(none, "\r\nRequire: path\r\n"));
    CHECK_FALSE(contains(none, "Proxy-Require"));
}

TEST_CASE("C-19, RFC 3581: received and rport tell where the REGISTER came from, the UE's own claim is not believed") {
    auto rules = rules_24228();
    rules.received = udp_flow("192.0.2.1:5060", "198.51.100.7:40000");
    const auto via = [&](std::string_view value) {
        std::string text = register_with("");
        const std::size_t at = text.find("SIP/2.0/UDP [");
        text.replace(at, text.find("\r\n", at) - at, value);
        const std::string out = to_core(text, rules);
        const std::size_t second = out.find("Via: ", out.find("Via: ") + 1);
        return out.substr(second, out.find("\r\n", second) - second);
    };
    CHECK(via("SIP/2.0/UDP 198.51.100.7;branch=z9hG4bK1") == "Via: SIP/2.0/UDP 198.51.100.7;branch=z9hG4bK1");
    CHECK(via("SIP/2.0/UDP 10.0.0.1:5061;branch=z9hG4bK1") ==
          "Via: SIP/2.0/UDP 10.0.0.1:5061;branch=z9hG4bK1;received=198.51.100.7");
    CHECK(via("SIP/2.0/UDP ue.example.com") == "Via: SIP/2.0/UDP ue.example.com;received=198.51.100.7");
    CHECK(via("SIP/2.0/UDP 10.0.0.1 ;rport; branch=z9hG4bK1") ==
          "Via: SIP/2.0/UDP 10.0.0.1 ;rport=40000;branch=z9hG4bK1;received=198.51.100.7");
    CHECK(via("SIP/2.0/UDP 198.51.100.7;branch=z9hG4bK1;received=203.0.113.9") ==
          "Via: SIP/2.0/UDP 198.51.100.7;branch=z9hG4bK1");
}

TEST_CASE("Route of a REGISTER is removed whole, whoever is named in it: the phone does not choose the way") {
    CHECK_FALSE(contains(to_core(register_with("Route: <sip:pcscf1.visited1.net:5060;lr>\n")), "Route:"));
    const auto evil = to_core(
        register_with("Route: <sip:pcscf1.visited1.net;lr>, <sip:evil.example;lr>\nRoute: <sip:other.example;lr>\n"));
    CHECK_FALSE(contains(evil, "Route:"));
    CHECK_FALSE(contains(evil, "evil"));
}

TEST_CASE("RFC 3261 §16.3: Max-Forwards 0 is not forwarded") {
    std::string text = register_with("");
    text.replace(text.find("Max-Forwards: 70"), 16, "Max-Forwards: 0");
    CHECK_FALSE(register_to_core(*parse(text), rules_24228()).has_value());
}

TEST_CASE("C-31: the 401 of TS 24.228 loses ck and ik and gets Security-Server; the rest is byte for byte") {
    const std::string out = to_ue(
        challenge_with(
            "WWW-Authenticate: Digest realm=\"registrar.home1.net\", nonce=\"Ms8l2xeF3l4lb0VO8fK3KFMSKLv1sQAATdN2NpFUCgU=\", algorithm=AKAv1-MD5, "
            "ik=\"00112233445566778899aabbccddeeff\", ck=\"ffeeddccbbaa11223344556677889900\"\n"
            "P-Charging-Vector: icid-value=\"x\"\n"),
        "ipsec-3gpp; q=0.1; alg=hmac-sha-1-96; spi-c=98765432; spi-s=87654321; port-c=8642; port-s=7531");
    CHECK(out == crlf(R"(
SIP/2.0 401 Unauthorized
Via: SIP/2.0/UDP [5555::aaa:bbb:ccc:ddd];branch=z9hG4bKnashds7
From: <sip:user1_public1@home1.net>;tag=4fa3
To: <sip:user1_public1@home1.net>;tag=5ef4
Call-ID: apb03a0s09dkjdfglkj49111
CSeq: 1 REGISTER
WWW-Authenticate: Digest realm="registrar.home1.net", nonce="Ms8l2xeF3l4lb0VO8fK3KFMSKLv1sQAATdN2NpFUCgU=", algorithm=AKAv1-MD5
Content-Length: 0
Security-Server: ipsec-3gpp; q=0.1; alg=hmac-sha-1-96; spi-c=98765432; spi-s=87654321; port-c=8642; port-s=7531

)"));
}

TEST_CASE("H-1: no octet sequence of the keys reaches the UE, however the core spells them") {
    const std::string ck = "0123456789abcdefABCDEF9876543210", ik = "fedcba98765432100011223344556677";
    const std::vector<std::string> spellings{
        "WWW-Authenticate: Digest ck=\"@C\", ik=\"@I\", realm=\"r\", nonce=\"n\"\n",
        "WWW-Authenticate: Digest realm=\"r\",nonce=\"n\",ck=@C,ik=@I\n",
        "WWW-Authenticate: Digest realm=\"r\", CK=\"@C\", nonce=\"n\", Ik = \"@I\"\n",
        "WWW-Authenticate: Digest ik=\"@I\", realm=\"r\", ck=\"@C\", nonce=\"n\"\n",
        "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\"\nWWW-Authenticate: Digest realm=\"s\", ck=\"@C\", ik=\"@I\"\n",
        "www-authenticate: Digest ck=\"@C\"\nWWW-Authenticate: Digest ik=\"@I\"\n",
        "WWW-Authenticate: Digest realm=\"r\", ck=\"@C\", ck=\"@C\", ik=\"@I\", nonce=\"n\", ik=@I\n",
        "WWW-Authenticate: Digest realm=\"r\",\n ck\n =\n \"@C\",\n ik=\"@I\",\n nonce=\"n\"\n",
        "WWW-Authenticate: Digest realm=\"r\" ck=\"@C\" ik=\"@I\"\n",
        "WWW-Authenticate: Digest realm=\"r, ck=\"@C\", nonce=\"n, ik=\"@I\"\n",
        "WWW-Authenticate: Digest realm=\"r\", ck=\"@C, ik=@I\n",
        "WWW-Authenticate: Digest realm=\"r\", ck=\"@C\", Digest realm=\"s\", ik=\"@I\"\n",
        "WWW-Authenticate: Unknown ck=\"@C\", ik=\"@I\"\n",
        "Proxy-Authenticate: Digest realm=\"r\", ck=\"@C\", ik=\"@I\"\n",
        "Authentication-Info: nextnonce=\"n\", ck=\"@C\",ik=\"@I\"\n",
        "WWW-Authenticate: Digest ck=\"@C\", ik=\"@I\", realm=\"r\"\nX-Debug: keys @C and @I\n",
    };
    for (std::string text : spellings) {
        CAPTURE(text);
        for (const auto& [mark, key] : {std::pair("@C", ck), std::pair("@I", ik)})
            for (std::size_t at = 0; (at = text.find(mark, at)) != std::string::npos;) text.replace(at, 2, key);
        for (const bool upper : {false, true}) {
            std::string message = challenge_with(text);
            if (upper)
                for (const std::string& key : {ck, ik})
                    for (std::size_t at = 0; (at = message.find(key, at)) != std::string::npos; ++at)
                        for (std::size_t i = at; i < at + key.size(); ++i)
                            if (message[i] >= 'a' && message[i] <= 'f')
                                message[i] = static_cast<char>(message[i] & ~0x20);
            REQUIRE(contains(lower(message), lower(ck)));
            const std::string out = lower(to_ue(message));
            for (const std::string& key : {lower(ck), lower(ik)})
                for (std::size_t i = 0; i + 8 <= key.size(); ++i) CHECK_FALSE(contains(out, key.substr(i, 8)));
        }
    }
}

TEST_CASE("H-1: a copy of a key is found wherever it stands, whatever stands around it") {
    // Few letters, so that beginnings of the key are everywhere, and copies touch each other.
    const std::string key = "abaabaaabaabaaba", upper = "ABAABAAABAABAABA";
    for (std::size_t before = 0; before < 40; ++before) {
        const std::string around = std::string("aababaabaaabaabaabaaabaabaabaaabaabaaababab").substr(0, before);
        const std::string line = "X-Debug: " + around + upper + key + around + "\n";
        const std::string out =
            lower(to_ue(challenge_with("WWW-Authenticate: Digest realm=\"r\", ck=\"" + key + "\"\n" + line)));
        CAPTURE(line);
        CHECK_FALSE(contains(out, key));
        CHECK(contains(out, std::string(key.size(), '*')));
    }
}

TEST_CASE("H-1: a key of asterisks that the message repeats is answered, not searched for ever") {
    const std::string stars(32, '*');
    const std::string out =
        to_ue(challenge_with("WWW-Authenticate: Digest realm=\"r\", ck=\"" + stars + "\"\nX-Debug: " + stars + "\n"));
    CHECK(contains(out, "X-Debug: " + stars));
}

TEST_CASE("C-31: a nonce that looks like a key parameter in base64 is left alone") {
    const std::string line =
        "WWW-Authenticate: Digest realm=\"r\", nonce=\"Ms8l2xeF/ck=ab/ik=\", algorithm=AKAv1-MD5\n";
    CHECK(contains(to_ue(challenge_with(line)), crlf(line)));
}

TEST_CASE("C-31: what is left is still a comma list, for every place of the two parameters among others") {
    const std::vector<std::string> others{"realm=\"r\"", "nonce=\"n\"", "algorithm=AKAv1-MD5"};
    for (std::size_t i = 0; i <= others.size(); ++i)
        for (std::size_t k = 0; k <= others.size() + 1; ++k) {
            std::vector<std::string> all = others;
            all.insert(all.begin() + static_cast<std::ptrdiff_t>(i), "ck=\"00112233445566778899aabbccddeeff\"");
            all.insert(all.begin() + static_cast<std::ptrdiff_t>(k), "ik=ffeeddccbbaa11223344556677889900");
            std::string value;
            for (const auto& parameter : all) value += (value.empty() ? "" : ", ") + parameter;
            const std::string out = to_ue(challenge_with("WWW-Authenticate: Digest " + value + "\n"));
            CAPTURE(value);
            CHECK(contains(out, "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\", algorithm=AKAv1-MD5\r\n"));
        }
}

TEST_CASE("B-38: the 200 has no Security-Server, P-Associated-URI and Service-Route pass, P-Charging does not") {
    const std::string out = to_ue(crlf(R"(
SIP/2.0 200 OK
Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKours
Via: SIP/2.0/UDP [5555::aaa:bbb:ccc:ddd]:1357;branch=z9hG4bKnashds7
From: <sip:user1_public1@home1.net>;tag=4fa3
To: <sip:user1_public1@home1.net>;tag=5ef4
Call-ID: apb03a0s09dkjdfglkj49111
CSeq: 2 REGISTER
Path: <sip:term@pcscf1.visited1.net;lr>
Service-Route: <sip:orig@scscf1.home1.net;lr>
P-Associated-URI: <sip:user1_public1@home1.net>
P-Charging-Function-Addresses: ccf=192.0.2.9
Security-Server: tls
Content-Length: 0

)"));
    CHECK(out == crlf(R"(
SIP/2.0 200 OK
Via: SIP/2.0/UDP [5555::aaa:bbb:ccc:ddd]:1357;branch=z9hG4bKnashds7
From: <sip:user1_public1@home1.net>;tag=4fa3
To: <sip:user1_public1@home1.net>;tag=5ef4
Call-ID: apb03a0s09dkjdfglkj49111
CSeq: 2 REGISTER
Path: <sip:term@pcscf1.visited1.net;lr>
Service-Route: <sip:orig@scscf1.home1.net;lr>
P-Associated-URI: <sip:user1_public1@home1.net>
Content-Length: 0

)"));
}
