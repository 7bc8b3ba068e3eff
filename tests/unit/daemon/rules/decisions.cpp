// The proxy's pure decisions: Route, identities, Security-Verify, the unprotected port, emergency dialogs, requests and
// responses edited.
#include <fmt/format.h>

#include "daemon/proxy/emergency.h"
#include "daemon/proxy/unprotected_port.h"
#include "daemon/rules/call_rules.h"
#include "daemon/rules/from_ue_checks.h"
#include "daemon/rules/header_rules.h"
#include "daemon/rules/identity.h"
#include "daemon/rules/own_names.h"
#include "tests/support/still_clock.h"
#include "tests/unit/daemon/proxy/support.h"

using namespace gmgate;
using namespace gmgate::daemon;
using namespace gmgate::daemon::test;
using gmgate::test::StillClock;

namespace {

const std::vector<std::string> kOwn{"192.0.2.1:7531", "[2001:db8::1]:7531", "10.0.0.1:5060", "pcscf.visited.example"};

std::string request_with(std::string_view method, std::string_view uri, std::string_view lines = "",
                         std::string_view to_tag = "") {
    return crlf(fmt::format(R"(
{0} {1} SIP/2.0
Via: SIP/2.0/UDP 198.51.100.7:1357;branch=z9hG4bKue
Max-Forwards: 70
From: <sip:alice@home.example>;tag=a1
To: <sip:bob@home.example>{3}
Call-ID: c1@ue
CSeq: 7 {0}
{2}Content-Length: 0

)",
                            method, uri, lines, to_tag.empty() ? std::string() : fmt::format(";tag={}", to_tag)));
}

ToCore rules() {
    ToCore r;
    r.received = udp_flow("192.0.2.1:7531", "198.51.100.7:2468");
    r.via_host = "10.0.0.1:5060";
    r.core_uri = "sip:TOKEN@10.0.0.1:5060;lr";
    r.ue_uri = "sip:TOKEN@192.0.2.1:7531;lr";
    r.orig_ioi = "visited.example";
    r.own_hosts = kOwn;
    r.is_initial = true;
    r.registered = {Impu("sip:alice@home.example"), Impu("tel:+491701234567")};
    return r;
}

/// With the branch of our Via as BRANCH.
std::string without_branch(std::string text) {
    const std::size_t begin = text.find("branch=", text.find("Via: ")) + 7;
    return without_icid(text.replace(begin, text.find("\r\n", begin) - begin, "BRANCH"));
}

}  // namespace

TEST_CASE("C-60…C-64: an INVITE over the SAs as the core gets it") {
    const auto message = parse(request_with("INVITE", "sip:bob@home.example;user=phone",
                                            "Route: <sip:192.0.2.1:7531;lr>, <sip:orig@scscf.home.example;lr>\n"
                                            "P-Preferred-Identity: \"Alice\" <tel:+49-170-1234567>\n"
                                            "P-Asserted-Identity: <sip:boss@home.example>\n"
                                            "Proxy-Require: sec-agree\n"
                                            "Require: sec-agree, 100rel\n"
                                            "Security-Verify: ipsec-3gpp;alg=hmac-sha-1-96\n"
                                            "Authorization: Digest username=\"a\", integrity-protected=\"yes\"\n"
                                            "X-Own: kept   as it is\n"));
    auto checked = rules();
    checked.credentials = sip::RequestCredentials::read(*message);
    CHECK(without_branch(request_to_core(*message, checked, sip::Transport::udp)) == crlf(R"(
INVITE sip:bob@home.example;user=phone SIP/2.0
Via: SIP/2.0/UDP 10.0.0.1:5060;branch=BRANCH
Via: SIP/2.0/UDP 198.51.100.7:1357;branch=z9hG4bKue
Max-Forwards: 69
From: <sip:alice@home.example>;tag=a1
To: <sip:bob@home.example>
Call-ID: c1@ue
CSeq: 7 INVITE
Route: <sip:orig@scscf.home.example;lr>
Require: 100rel
Authorization: Digest username="a"
X-Own: kept   as it is
Content-Length: 0
Record-Route: <sip:TOKEN@10.0.0.1:5060;lr>, <sip:TOKEN@192.0.2.1:7531;lr>
P-Asserted-Identity: <tel:+491701234567>
P-Charging-Vector: icid-value="ICID";orig-ioi=visited.example

)"));
}

TEST_CASE("an in-dialog request keeps the dialog's route set, asserts nobody and charges nothing") {
    const auto message = parse(request_with(
        "BYE", "sip:bob@198.51.100.9",
        "Route: <sip:TOKEN@192.0.2.1:7531;lr>,<sip:TOKEN@10.0.0.1:5060;lr>\nRoute: <sip:scscf.home.example;lr>\n",
        "b1"));
    auto in_dialog = rules();
    in_dialog.is_initial = false;
    const std::string text = request_to_core(*message, in_dialog, sip::Transport::tcp);
    CHECK(contains(text, "Via: SIP/2.0/TCP 10.0.0.1:5060;branch=z9hG4bK"));
    CHECK(contains(text, "CSeq: 7 BYE\r\nRoute: <sip:scscf.home.example;lr>\r\nContent-Length: 0\r\n\r\n"));
    CHECK_FALSE(contains(text, "TOKEN"));
    CHECK_FALSE(contains(text, "P-"));
}

TEST_CASE("between two phones of ours only the sender's pair is popped, the other one's stays for the way back in") {
    const auto message = parse(request_with(
        "BYE", "sip:bob@198.51.100.9",
        "Route: <sip:A@192.0.2.1:7531;lr>, <sip:A@10.0.0.1:5060;lr>, <sip:B@10.0.0.1:5060;lr>\nRoute: <sip:B@192.0.2.1:7531;lr>\n",
        "b1"));
    const std::string text = request_to_core(*message, rules(), sip::Transport::udp);
    CHECK(contains(text, "\r\nRoute: <sip:B@10.0.0.1:5060;lr>\r\nRoute: <sip:B@192.0.2.1:7531;lr>\r\n"));
    CHECK_FALSE(contains(text, "sip:A@"));
}

TEST_CASE("C-60: a Route that is not the Service-Route is seen, and replaced as a whole") {
    const std::vector<std::string> service_route{"<sip:orig@scscf.home.example;lr>"};
    const auto compare = [&](std::string_view route) {
        const auto message = parse(request_with("MESSAGE", "sip:bob@home.example", route));
        return compare_route(split_route(*message, kOwn).rest, service_route);
    };
    CHECK(compare("Route: <sip:192.0.2.1:7531;lr>, <sip:orig@scscf.home.example;lr>\n") == RouteVerdict::same);
    CHECK(compare("Route: <sip:orig@scscf.home.example;lr>\n") == RouteVerdict::same);
    CHECK(compare("Route: <sip:pcscf.visited.example:7531;lr>\nRoute: <sip:orig@scscf.home.example;lr>\n") ==
          RouteVerdict::same);
    CHECK(compare("") == RouteVerdict::differs);
    CHECK(compare("Route: <sip:evil.example;lr>, <sip:orig@scscf.home.example;lr>\n") == RouteVerdict::differs);
    CHECK(compare("Route: <sip:orig@scscf.home.example;lr>, <sip:192.0.2.1:7531;lr>\n") == RouteVerdict::differs);

    auto replaced = rules();  // outside a dialog, as rules() are
    replaced.route = service_route;
    const auto message = parse(request_with("MESSAGE", "sip:bob@home.example",
                                            "Route: <sip:192.0.2.1:7531;lr>\nRoute: <sip:evil.example;lr>\n"));
    const std::string text = request_to_core(*message, replaced, sip::Transport::udp);
    CHECK_FALSE(contains(text, "evil"));
    CHECK(contains(text, "\r\nRoute: <sip:orig@scscf.home.example;lr>\r\n"));
}

TEST_CASE("C-61: the preferred identity counts only when it is registered; else the default one is asserted") {
    const auto asserted = [](std::string_view lines, const std::vector<Impu>& registered) {
        const auto message = parse(request_with("MESSAGE", "sip:bob@home.example", lines));
        sip::Edit edit(*message);
        assert_identity(edit, *message, registered);
        const std::string text = edit.to_string();
        CHECK_FALSE(contains(text, "P-Preferred-Identity"));
        const std::size_t at = text.find("P-Asserted-Identity: ");
        return at == std::string::npos ? std::string() : text.substr(at + 21, text.find("\r\n", at) - at - 21);
    };
    const std::vector<Impu> registered{Impu("sip:alice@home.example"), Impu("sip:alias@home.example")};
    CHECK(asserted("", registered) == "<sip:alice@home.example>");
    CHECK(asserted("P-Preferred-Identity: <sip:alias@HOME.example>\n", registered) == "<sip:alias@home.example>");
    CHECK(asserted("P-Preferred-Identity: <sip:boss@home.example>\n", registered) == "<sip:alice@home.example>");
    CHECK(asserted("P-Preferred-Identity: <sip:boss@home.example>, <sip:alias@home.example>\n", registered) ==
          "<sip:alias@home.example>");
    CHECK(asserted("P-Preferred-Identity: <sip:boss@home.example>\n", {}) == "");
}

TEST_CASE(
    "C-72: a request for the phone keeps its Request-URI, and the phone's answer asserts the identity that was called") {
    const auto message = parse(request_with("INVITE", "sip:alice@198.51.100.7:1357;transport=tcp",
                                            "Route: <sip:TOKEN@10.0.0.1:5060;lr>\n"
                                            "Record-Route: <sip:scscf.home.example;lr>\n"
                                            "P-Called-Party-ID: <sip:alias@home.example>\n"
                                            "P-Charging-Vector: icid-value=x\n"
                                            "P-Asserted-Identity: <sip:bob@home.example>\nPrivacy: id\n"));
    ToUe r;
    r.received = udp_flow("10.0.0.1:5060", "10.0.0.9:5060");
    r.via_host = "192.0.2.1:7531";
    r.core_uri = "sip:TOKEN@10.0.0.1:5060;lr";
    r.ue_uri = "sip:TOKEN@192.0.2.1:7531;lr";
    r.own_hosts = kOwn;
    CHECK(without_branch(request_to_ue(*message, r)) == crlf(R"(
INVITE sip:alice@198.51.100.7:1357;transport=tcp SIP/2.0
Via: SIP/2.0/UDP 192.0.2.1:7531;branch=BRANCH
Via: SIP/2.0/UDP 198.51.100.7:1357;branch=z9hG4bKue;received=10.0.0.9
Max-Forwards: 69
From: <sip:alice@home.example>;tag=a1
To: <sip:bob@home.example>
Call-ID: c1@ue
CSeq: 7 INVITE
Record-Route: <sip:TOKEN@192.0.2.1:7531;lr>, <sip:TOKEN@10.0.0.1:5060;lr>
Record-Route: <sip:scscf.home.example;lr>
P-Called-Party-ID: <sip:alias@home.example>
Privacy: id
Content-Length: 0

)"));
    const auto response = parse(crlf(R"(
SIP/2.0 200 OK
Via: SIP/2.0/UDP 192.0.2.1:7531;branch=z9hG4bKours
Via: SIP/2.0/UDP 10.0.0.9;branch=z9hG4bKcore
From: <sip:bob@home.example>;tag=a1
To: <sip:alice@home.example>;tag=b1
Call-ID: c1@ue
CSeq: 7 INVITE
P-Asserted-Identity: <sip:boss@home.example>
Content-Length: 0

)"));
    ResponseToCore back;
    back.registered = {Impu("sip:alice@home.example"), Impu("sip:alias@home.example")};
    back.called_party = "<sip:alias@home.example>";
    back.asserts = true;
    const std::string text = response_to_core(*response, back);
    CHECK(contains(text, "\r\nVia: SIP/2.0/UDP 10.0.0.9;branch=z9hG4bKcore\r\n"));
    CHECK_FALSE(contains(text, "z9hG4bKours"));
    CHECK_FALSE(contains(text, "boss"));
    CHECK(contains(text, "P-Asserted-Identity: <sip:alias@home.example>\r\n"));
}

TEST_CASE("C-61: wildcards of P-Associated-URI cover identities, and are never asserted themselves") {
    constexpr std::string_view kPbx = "sip:pbx-!.*!@home.example";
    CHECK(covers_identity(kPbx, "sip:pbx-42@home.example"));
    CHECK(covers_identity(kPbx, "SIP:pbx-@HOME.example;user=phone"));
    CHECK_FALSE(covers_identity(kPbx, "sip:Pbx-42@home.example"));
    CHECK_FALSE(covers_identity(kPbx, "sip:pbx-42@other.example"));
    CHECK_FALSE(covers_identity(kPbx, "sip:xpbx-42@home.example"));
    CHECK_FALSE(covers_identity(kPbx, "tel:pbx-42"));
    CHECK(covers_identity("tel:+4989!1[0-9]{2,3}!", "tel:+49891234"));
    CHECK_FALSE(covers_identity("tel:+4989!1[0-9]{2,3}!", "tel:+498912345"));
    CHECK_FALSE(covers_identity("tel:+4989!1|2!", "tel:+498912"));                 // the whole of it
    CHECK_FALSE(covers_identity("sip:a!(!@home.example", "sip:a(@home.example"));  // no expression
    CHECK_FALSE(covers_identity("sip:alice@home.example", "sip:alice@home.example"));
    CHECK_FALSE(covers_identity(kPbx, "sip:pbx-" + std::string(300, 'x') + "@home.example"));

    const auto asserted = [&](std::string_view preferred) {
        const std::string bytes = request_with("INVITE", "sip:b@x", preferred);
        const auto message = parse(bytes);
        sip::Edit edit(*message);
        assert_identity(edit, *message, {Impu(std::string(kPbx)), Impu("sip:main@home.example")});
        const std::string text = edit.to_string();
        const auto at = text.find("P-Asserted-Identity: ");
        return at == std::string::npos ? std::string() : text.substr(at + 21, text.find("\r\n", at) - at - 21);
    };
    CHECK(asserted("P-Preferred-Identity: \"Desk\" <sip:pbx-42@home.example>\n") == "<sip:pbx-42@home.example>");
    CHECK(asserted("P-Preferred-Identity: <sip:boss@home.example>\n") == "<sip:main@home.example>");
    CHECK(asserted("") == "<sip:main@home.example>");
}

TEST_CASE(
    "Privacy: id hides P-Asserted-Identity from a phone, however the values are separated, and none excludes it") {
    const auto asks = [](std::string_view value) {
        return asks_for_id_privacy(*parse(request_with("INVITE", "sip:b@x", fmt::format("Privacy: {}\n", value))));
    };
    for (const char* value : {"id", "ID", "header;id", "user; id ;critical", "session,id", "id\nPrivacy: user"})
        CHECK(asks(value));
    for (const char* value : {"none", "header;session;user", "history", "identity", "none;id"})
        CHECK_FALSE(asks(value));
}

TEST_CASE("The caller's P-Access-Network-Info does not reach the called phone, nor the other way round") {
    const auto request = parse(request_with("INVITE", "sip:a@x", "P-Access-Network-Info: 3GPP-E-UTRAN;cell=1\n"));
    ToUe to_ue;
    to_ue.received = udp_flow("10.0.0.1:5060", "10.0.0.9:5060");
    CHECK_FALSE(contains(request_to_ue(*request, to_ue), "P-Access-Network-Info"));
}

TEST_CASE("TS 24.229 §5.2.6.4.4: the phone's 1xx and 2xx get the P-Charging-Vector of the request with term-ioi") {
    CHECK(charging_vector_back("icid-value=\"a;b\";icid-generated-at=10.0.0.9;orig-ioi=home1.net;term-ioi=evil;x=1",
                               "visited.example") ==
          "icid-value=\"a;b\";icid-generated-at=10.0.0.9;orig-ioi=home1.net;term-ioi=visited.example");
    CHECK(charging_vector_back("icid-value=x", "Visited ProxyNetwork").ends_with(";term-ioi=\"Visited ProxyNetwork\""));
    CHECK(charging_vector_back("", "visited.example").empty());
    const auto answer = [](int status, bool asserts) {
        const auto response = parse(crlf(fmt::format(
            "SIP/2.0 {} X\nVia: SIP/2.0/UDP 192.0.2.1:7531;branch=z9hG4bKours\nVia: SIP/2.0/UDP 10.0.0.9;branch=z9hG4bKc\n"
            "From: <sip:bob@home.example>;tag=a1\nTo: <sip:alice@home.example>;tag=b1\nCall-ID: c1@ue\nCSeq: 7 INVITE\n"
            "P-Charging-Vector: icid-value=evil;term-ioi=evil\nContent-Length: 0\n\n",
            status)));
        ResponseToCore back;
        back.asserts = asserts;
        back.charging_vector = "icid-value=x;orig-ioi=home.example";
        back.term_ioi = "visited.example";
        return response_to_core(*response, back);
    };
    constexpr std::string_view kOurs =
        "\r\nP-Charging-Vector: icid-value=x;orig-ioi=home.example;term-ioi=visited.example\r\n";
    CHECK(contains(answer(180, true), kOurs));
    CHECK(contains(answer(200, true), kOurs));
    for (const auto& text : {answer(486, true), answer(200, false), answer(100, true)})
        CHECK_FALSE(contains(text, "P-Charging-Vector"));
    CHECK_FALSE(contains(answer(200, true), "evil"));
}

TEST_CASE("From the core what this gateway does not go by passes as it came; a phone's is judged strictly") {
    const auto status = [](std::string text, Sender sender) {
        const auto objection = check_proxyable(*parse(text), false, sender);
        return objection ? objection->status : 0;
    };
    const auto with_from = [](std::string_view from) {
        std::string text = request_with("INVITE", "sip:b@x");
        const auto at = text.find("From: ");
        return text.replace(at, text.find("\r\n", at) - at, fmt::format("From: {}", from));
    };
    const std::string far_via =
        request_with("INVITE", "sip:b@x", "Via: SIP/2.0/UDP pstn.example:0;branch=z9hG4bKfar\n");
    const std::string name = with_from("Smith, John: 5 <sip:+49891@home.example;user=phone>;tag=a1");
    CHECK(status(far_via, Sender::phone) == 400);
    CHECK(status(far_via, Sender::core) == 0);
    CHECK(status(name, Sender::phone) == 400);
    CHECK(status(name, Sender::core) == 0);
    CHECK(status(with_from("\"Smith <sip:a@b>;tag=a1"), Sender::core) == 400);  // where does the address begin?
    std::string top = request_with("INVITE", "sip:b@x");
    const auto at = top.find("Via: ");
    CHECK(status(top.replace(at, top.find("\r\n", at) - at, "Via: SIP/2.0/UDP pstn.example:0;branch=z9hG4bKt"),
                 Sender::core) == 400);  // the answer goes there
}

TEST_CASE("C-70: the token stands in the topmost Route of ours, else in the Request-URI") {
    const auto token = [](std::string_view uri, std::string_view lines) {
        return token_of(*parse(request_with("MESSAGE", uri, lines)), kOwn);
    };
    CHECK(token("sip:bob@198.51.100.7", "Route: <sip:abc@10.0.0.1:5060;lr>\n") == "abc");
    CHECK(token("sip:bob@198.51.100.7", "Route: <sip:10.0.0.1;lr>, <sip:abc@192.0.2.1:7531;lr>\n") == "abc");
    CHECK(token("sip:abc@10.0.0.1", "") == "abc");
    CHECK(token("sip:10.0.0.1", "") == "");
    CHECK(token("sip:abc@10.0.0.1:5061", "") == std::nullopt);
    CHECK(token("sip:bob@198.51.100.7", "Route: <sip:other.example;lr>, <sip:abc@10.0.0.1:5060;lr>\n") == std::nullopt);
    CHECK(token("tel:+4912345", "") == std::nullopt);
}

TEST_CASE("RFC 3261 §16.3: 483 at Max-Forwards 0, 420 for an option that a proxy must know") {
    const auto status = [](std::string text) {
        const auto objection = check_proxyable(*parse(text), false);
        return objection ? objection->status : 0;
    };
    CHECK(status(request_with("INVITE", "sip:b@x")) == 0);
    std::string used_up = request_with("INVITE", "sip:b@x");
    CHECK(status(used_up.replace(used_up.find("Forwards: 70"), 12, "Forwards: 0")) == 483);
    CHECK(status(request_with("INVITE", "sip:b@x", "Proxy-Require: sec-agree, mediasec\n")) == 0);
    const auto objection =
        check_proxyable(*parse(request_with("INVITE", "sip:b@x", "Proxy-Require: sec-agree, foo\n")), false);
    REQUIRE(objection.has_value());
    CHECK(objection->status == 420);
    CHECK(objection->extra == std::vector<std::string>{"Unsupported: foo"});
}

TEST_CASE("C-64, A-17: a Security-Verify that is not what was sent gets 494 with Security-Server; absent is accepted") {
    const std::string sent = "ipsec-3gpp;alg=hmac-sha-1-96;ealg=null;spi-c=11111;spi-s=22222;port-c=8642;port-s=7531";
    Registration registration;
    registration.sets.push_back(std::make_unique<SaSet>());
    registration.sets.push_back(std::make_unique<SaSet>());
    registration.sets[0]->security_server = sent;
    registration.sets[1]->security_server =
        "ipsec-3gpp;alg=hmac-sha-1-96;spi-c=33333;spi-s=44444;port-c=8643;port-s=7531";
    const auto check = [&](std::string_view method, const std::string& verify) {
        const auto message =
            parse(request_with(method, "sip:b@x", verify.empty() ? "" : "Security-Verify: " + verify + "\n"));
        return check_security_verify(*message, registration.sets[0].get(), registration, false);
    };
    CHECK_FALSE(check("MESSAGE", "").has_value());
    CHECK_FALSE(check("MESSAGE", sent).has_value());
    CHECK_FALSE(check("MESSAGE", registration.sets[1]->security_server).has_value());
    CHECK_FALSE(check("ACK", "tls").has_value());
    const auto objection = check("MESSAGE", "tls");
    REQUIRE(objection.has_value());
    CHECK(objection->status == 494);
    CHECK(objection->extra == std::vector<std::string>{"Security-Server: " + sent});
    CHECK(check("MESSAGE", "ipsec-3gpp;q=2")->status == 400);
}

TEST_CASE("B-19, G-9, G-11: what an unprotected port lets through") {
    StillClock clock;
    EmergencyDialogs dialogs(clock);
    SipInterface interface;
    interface.sec_agree_feature = true;
    const auto judge = [&](std::string_view method, std::string_view uri, std::string_view lines = "",
                           std::string_view to_tag = "") {
        return judge_unprotected(*parse(request_with(method, uri, lines, to_tag)), interface, dialogs);
    };
    CHECK(judge("INVITE", "sip:bob@home.example") == UnprotectedVerdict::reject_403);
    CHECK(judge("OPTIONS", "sip:pcscf.visited.example") == UnprotectedVerdict::reject_403);
    CHECK(judge("OPTIONS", "sip:pcscf.visited.example", "Require: sec-agree\n") == UnprotectedVerdict::reject_494);
    CHECK(judge("INVITE", "sip:bob@home.example", "Proxy-Require: sec-agree\n") == UnprotectedVerdict::reject_494);
    CHECK(judge("ACK", "sip:bob@home.example") == UnprotectedVerdict::drop);
    CHECK(judge("INVITE", "urn:service:sos") == UnprotectedVerdict::emergency);
    CHECK(judge("INVITE", "URN:service:SOS.fire") == UnprotectedVerdict::emergency);
    CHECK(judge("INVITE", "urn:service:sosx") == UnprotectedVerdict::reject_403);
    CHECK(judge("INVITE", "tel:112") == UnprotectedVerdict::emergency);
    CHECK(judge("INVITE", "sip:9-1-1@home.example;user=phone") == UnprotectedVerdict::emergency);
    CHECK(judge("INVITE", "sip:112@home.example") == UnprotectedVerdict::emergency);
    CHECK(judge("INVITE", "tel:1123") == UnprotectedVerdict::reject_403);
    CHECK(judge("MESSAGE", "urn:service:sos") == UnprotectedVerdict::emergency);
    for (const char* method : {"OPTIONS", "SUBSCRIBE", "PUBLISH", "NOTIFY", "REFER", "INFO", "BYE", "UPDATE", "FOO"})
        CHECK(judge(method, "urn:service:sos") == UnprotectedVerdict::reject_403);
    CHECK(judge("INVITE", "urn:service:sos", "", "b1") == UnprotectedVerdict::reject_403);  // in no dialog that we know
    interface.anonymous_emergency = false;
    CHECK(judge("INVITE", "urn:service:sos") == UnprotectedVerdict::reject_403);
    interface.sec_agree_feature = false;
    CHECK(judge("INVITE", "sip:bob@home.example", "Proxy-Require: sec-agree\n") == UnprotectedVerdict::reject_420);
    CHECK(judge("INVITE", "sip:bob@home.example") == UnprotectedVerdict::reject_403);
}

TEST_CASE("C-84: the rest of an emergency dialog passes in both directions, and nothing else by its Call-ID") {
    StillClock clock;
    EmergencyDialogs dialogs(clock, {.calls = 2, .unanswered_per_source = 2}, seconds{60});
    SipInterface interface;
    interface.sec_agree_feature = true;
    const auto flow = udp_flow("192.0.2.1:5060", "198.51.100.7:5060");
    const EmergencyDialog* dialog = dialogs.open(*parse(request_with("INVITE", "urn:service:sos")), flow);
    REQUIRE(dialog != nullptr);
    const std::string token = dialog->token;
    const auto judge = [&](std::string_view text) { return judge_unprotected(*parse(text), interface, dialogs); };
    CHECK(judge(request_with("BYE", "sip:psap@10.0.0.9", "", "b1")) ==
          UnprotectedVerdict::reject_403);  // nobody has answered yet
    const auto answer = [&](std::string_view tag, std::string_view contact) {
        return parse(crlf(fmt::format(
            "SIP/2.0 200 OK\nVia: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKx\nFrom: <sip:a@b>;tag=a1\nTo: <sip:b@b>;tag={}\nCall-ID: c1@ue\n"
            "CSeq: 7 INVITE\nContact: <{}>\nContent-Length: 0\n\n",
            tag, contact)));
    };
    dialogs.learn(token, *answer("b1", "sip:psap@10.0.0.9"), {"<sip:ecscf;lr>"});
    dialogs.answered(token);
    CHECK(judge(request_with("BYE", "sip:psap@10.0.0.9", "", "b1")) == UnprotectedVerdict::emergency);
    CHECK(judge(request_with("BYE", "sip:psap@10.0.0.9;transport=udp", "", "b1")) == UnprotectedVerdict::emergency);
    CHECK(judge(request_with("BYE", "sip:psap@10.0.0.9", "", "b2")) == UnprotectedVerdict::reject_403);
    CHECK(judge(request_with("INVITE", "sip:bob@home.example", "", "b1")) ==
          UnprotectedVerdict::reject_403);  // another target
    for (const char* method : {"MESSAGE", "REFER", "SUBSCRIBE", "OPTIONS", "NOTIFY", "PUBLISH", "FOO"})
        CHECK(judge(request_with(method, "sip:psap@10.0.0.9", "", "b1")) == UnprotectedVerdict::reject_403);
    for (const char* method : {"INVITE", "PRACK", "UPDATE", "INFO", "BYE"})
        CHECK(judge(request_with(method, "sip:psap@10.0.0.9", "", "b1")) == UnprotectedVerdict::emergency);
    dialogs.learn(token, *answer("b1", "sip:psap@10.0.0.10"), {});  // a target refresh; a request may cross it
    CHECK(judge(request_with("BYE", "sip:psap@10.0.0.10", "", "b1")) == UnprotectedVerdict::emergency);
    CHECK(judge(request_with("BYE", "sip:psap@10.0.0.9", "", "b1")) == UnprotectedVerdict::emergency);
    CHECK(judge(request_with("ACK", "sip:psap@10.0.0.9", "", "b1")) == UnprotectedVerdict::emergency);
    CHECK(judge(request_with("MESSAGE", "sip:bob@home.example")) ==
          UnprotectedVerdict::reject_403);  // a new request with the old Call-ID
    std::string other = request_with("BYE", "sip:psap@10.0.0.9", "", "b1");
    CHECK(judge(other.replace(other.find("tag=a1"), 6, "tag=zz")) == UnprotectedVerdict::reject_403);

    CHECK(dialogs.open(*parse(request_with("INVITE", "urn:service:sos")), flow)->token ==
          token);  // a retransmission opens nothing
    std::string second = request_with("INVITE", "urn:service:sos"), third = second;
    CHECK(dialogs.open(*parse(second.replace(second.find("c1@ue"), 5, "c2@ue")), flow) != nullptr);
    bool ended = false;
    dialogs.on_evicted(dialogs.open(*parse(second), flow)->token, [&] { ended = true; });
    CHECK(dialogs.open(*parse(third.replace(third.find("c1@ue"), 5, "c3@ue")), flow) !=
          nullptr);  // bounded: the unanswered one gives way
    CHECK(ended);
    CHECK(dialogs.evicted() == 1);
    CHECK(dialogs.size() == 2);
    CHECK(dialogs.find_by_token(token) != nullptr);
    dialogs.answered(dialogs.open(*parse(third), flow)->token);
    CHECK(dialogs.open(*parse(second), flow) == nullptr);  // answered calls never do
    clock.at += seconds{61};
    CHECK(dialogs.find_by_token(token) == nullptr);
    CHECK(dialogs.open(*parse(third), flow) != nullptr);
    CHECK(dialogs.size() == 1);
}

TEST_CASE(
    "unanswered emergency calls: bounded for an IPv4 address and an IPv6 /64, the oldest gives way; strangers do not lock others out") {
    StillClock clock;
    EmergencyDialogs dialogs(clock, {.calls = 8, .unanswered_per_source = 3});
    int number = 0;
    const auto call = [&](std::string_view from) {
        std::string text = request_with("INVITE", "urn:service:sos");
        text.replace(text.find("c1@ue"), 5, fmt::format("n{}@ue", ++number));
        const EmergencyDialog* dialog =
            dialogs.open(*parse(text), udp_flow(from.starts_with('[') ? "[2001:db8::1]:5060" : "192.0.2.1:5060", from));
        REQUIRE(dialog != nullptr);
        return dialog->token;
    };
    const std::string victim = call("198.51.100.7:5060");
    for (int i = 0; i < 20; ++i) call(fmt::format("[2001:db8:0:1::{:x}]:5060", i + 1));  // one /64
    CHECK(dialogs.size() == 4);
    CHECK(dialogs.find_by_token(victim) != nullptr);
    for (int i = 0; i < 5; ++i) call("198.51.100.8:5060");
    CHECK(dialogs.size() == 7);
    CHECK(dialogs.find_by_token(victim) != nullptr);
    dialogs.answered(victim);
    for (int i = 0; i < 1100; ++i)
        call(fmt::format("198.51.{}.{}:5060", i / 250, i % 250 + 1));  // each from another address
    CHECK(dialogs.size() == 8);
    CHECK(dialogs.find_by_token(victim) != nullptr);
    CHECK(dialogs.evicted() == 1118);
}

TEST_CASE(
    "A-22, A-23: with server-initiated agreement a request without sec-agree gets 421, with Supported 494, with two Via 502") {
    SipInterface interface;
    interface.sec_agree_feature = true;
    interface.server_initiated = true;
    const Clock clock;
    const EmergencyDialogs dialogs(clock);
    const auto judge = [&](const std::string& more) {
        const auto message = parse(request_with("MESSAGE", "sip:b@x", more));
        return judge_unprotected(*message, interface, dialogs);
    };
    CHECK(judge("") == UnprotectedVerdict::reject_421);
    CHECK(judge("Supported: sec-agree\n") == UnprotectedVerdict::reject_494);
    CHECK(judge("Via: SIP/2.0/UDP 192.0.2.99;branch=z9hG4bKother\n") == UnprotectedVerdict::reject_502);
}
