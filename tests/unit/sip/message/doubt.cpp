// What a request may not leave open: find_doubt() names the field, and lets pass what phones send.
#include "tests/unit/sip/message/support.h"

#include "sip/message/doubt.h"

using namespace gmgate::sip;
using namespace gmgate::sip::test;

namespace {

/// "field: why" of the first doubt, "" when there is none.
std::string doubt_of(std::string_view bytes) {
    const auto message = Message::parse(bytes);
    REQUIRE_MESSAGE(message, bytes);
    const auto doubt = find_doubt(*message);
    return doubt ? std::string(doubt->field) + ": " + std::string(doubt->why) : std::string();
}
std::string doubt_with(std::string_view lines, std::string_view start = "MESSAGE sip:b@example.com SIP/2.0") {
    return doubt_of(message_with(lines, start));
}

/// With the To of message_with() replaced.
std::string doubt_in_to(std::string_view to) {
    std::string bytes = message_with("");
    const std::string plain = "<sip:b@example.com>";
    bytes.replace(bytes.find("To: ") + 4, plain.size(), to);
    const auto message = Message::parse(std::string_view(bytes));
    if (!message) return "no message";
    const auto doubt = find_doubt(*message);
    return doubt ? std::string(doubt->field) + ": " + std::string(doubt->why) : std::string();
}

}  // namespace

TEST_CASE("a handset's REGISTER leaves nothing open") { CHECK(doubt_of(handset_register()).empty()); }

TEST_CASE("From and To: what phones send passes") {
    for (const std::string_view to :
         {"sip:b@example.com", "sip:b@example.com;tag=1", "\"Bob\" <sip:b@example.com>;tag=1;x=\"a b\"",
          "Bob <sip:b@example.com>", "<tel:+491701234567>", "tel:+491701234567;tag=1",
          "<sip:+49170;phone-context=x@example.com;user=phone>", "\"A \\\"nick\\\" B\" <sip:b@example.com>",
          "<sip:b:secret@[2001:db8::1]:5060>", "<urn:service:sos>", "<sip:*21*123#@example.com>",
          "<tel:110;phone-context=ims.example>"})
        CHECK_MESSAGE(doubt_in_to(to).empty(), to);
}

TEST_CASE("From and To: no second address, no second parameter") {
    for (const std::string_view to :
         {"<sip:a@example.com>, <sip:victim@example.com>", "sip:a@example.com,sip:victim@example.com", "tel:1,tel:2",
          "<sip:a@example.com><sip:victim@example.com>", "\"\\\"<sip:victim@example.com>\" <sip:a@example.com>",
          "\"x\" y \"z\" <sip:a@example.com>", "<sip:a@example.com>;tag=1;tag=2",
          "<sip:a@example.com>;x=<sip:victim@example.com>", "<sip:a@example.com;user=phone;user=ip>",
          "<sip:a@example.com;user=phone;%75ser=ip>", "<sip:a@b@example.com>", "sip:a@example.com?To=sip%3Avictim",
          "<sip:a@example.com?To=sip%3Avictim>", "<sip:a@example.com> x", "<sip:a@exa mple.com>",
          "<sip:a@example.com>;tag=\"1", "*"})
        CHECK_MESSAGE(!doubt_in_to(to).empty(), to);
}

TEST_CASE("Contact: one value but in REGISTER, no parameter twice") {
    CHECK(doubt_with("Contact: "
                     "<sip:a@192.0.2.1;transport=tcp;ob>;expires=600;+sip.instance=\"<urn:gsma:imei:1>\";+g.3gpp.icsi-"
                     "ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.mmtel\";q=0.5\n")
              .empty());
    CHECK(doubt_with("Contact: <sip:a@192.0.2.1>\nm: <sip:b@192.0.2.1>\n") == "Contact: there is more than one value");
    CHECK(doubt_with("Contact: <sip:a@192.0.2.1>, <sip:b@192.0.2.1>\n") == "Contact: there is more than one value");
    CHECK(doubt_with("Contact: <sip:a@192.0.2.1>, <sip:b@192.0.2.1>\n", "REGISTER sip:example.com SIP/2.0").empty());
    CHECK(doubt_with("Contact: *\n", "REGISTER sip:example.com SIP/2.0").empty());
    CHECK(doubt_with("Contact: *, <sip:b@192.0.2.1>\n", "REGISTER sip:example.com SIP/2.0") ==
          "Contact: * stands beside other values");
    CHECK(doubt_with("Contact: <sip:a@192.0.2.1>;expires=600;Expires=0\n") == "Contact: a parameter occurs twice");
    CHECK(doubt_with("Contact: <sip:a@192.0.2.1>;+g.x=\"a\";+g.x=\"b\"\n").empty());
    CHECK(doubt_with("Contact: <sip:a@192.0.2.1>;+sip.instance=\"<a>\";+sip.instance=\"<b>\"\n") ==
          "Contact: a parameter occurs twice");
    CHECK(doubt_with("Contact: <sip:a@192.0.2.1;sos;sos>\n") == "Contact: a parameter occurs twice");
    CHECK(doubt_with("Contact: <sip:a@192.0.2.1>;+sip.instance=\"<a>\"x\n") == "Contact: a quoted string is malformed");
}

TEST_CASE("Via, Route, Request-URI: no parameter twice, Route in brackets") {
    CHECK(doubt_with("Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK2;branch=z9hG4bK3\n") ==
          "Via: a parameter occurs twice");
    CHECK(doubt_with("v: SIP/2.0/UDP 192.0.2.1;rport;received=192.0.2.2;rport=5\n") == "Via: a parameter occurs twice");
    CHECK(doubt_with("Route: <sip:a.example;lr>, <sip:orig@b.example;lr;transport=udp>\n").empty());
    CHECK(doubt_with("Route: <sip:a.example;lr;lr>\n") == "Route: a parameter occurs twice");
    CHECK(doubt_with("Route: <sip:a.example;transport=udp;tr%61nsport=tcp>\n") == "Route: a parameter occurs twice");
    CHECK(doubt_with("Route: sip:a.example;lr\n") == "Route: the URI stands without <>");
    CHECK_FALSE(doubt_with("Route: <sip:a.example;lr>,\n").empty());
    CHECK(doubt_with("", "MESSAGE sip:b@example.com;user=phone;user=ip SIP/2.0") ==
          "Request-URI: a parameter occurs twice");
    CHECK(doubt_with("", "MESSAGE tel:110;phone-context=a;phone-context=b SIP/2.0") ==
          "Request-URI: a parameter occurs twice");
}

TEST_CASE("Max-Forwards, Call-ID, and what stands once") {
    CHECK(doubt_with("Max-Forwards: 0070\n").empty());
    for (const std::string_view value : {"256", "-1", "70x", "7 0", ""})
        CHECK(doubt_with("Max-Forwards: " + std::string(value) + "\n") ==
              "Max-Forwards: it is no number from 0 to 255");
    CHECK(doubt_with("c: text/plain\nContent-Type: application/sdp\n") ==
          "Content-Type: the header field occurs twice");
    CHECK(doubt_with("Expires: 0\nExpires: 600\n") == "Expires: the header field occurs twice");
    CHECK(doubt_with("o: reg\nEvent: presence\n") == "Event: the header field occurs twice");
    std::string bytes = message_with("");
    bytes.replace(bytes.find("Call-ID: x") + 9, 1, "x y");
    CHECK(doubt_of(bytes) == "Call-ID: it is more than one word");
}

TEST_CASE("option tags, Security-* and identities") {
    CHECK(doubt_with("Require: sec-agree, 100rel\nProxy-Require:sec-agree\nSupported:\n").empty());
    CHECK(doubt_with("Require: sec-agree;x\n") == "Require: an option tag is malformed");
    CHECK(doubt_with("Proxy-Require: sec agree\n") == "Proxy-Require: an option tag is malformed");
    CHECK(doubt_with("Security-Verify: tls;d-alg=md5;d-alg=sha\n") ==
          "Security-Verify: entry 1 parameter d-alg: parameter occurs twice");
    std::string many = "Security-Client: tls";
    for (int i = 0; i < 32; ++i) many += ", tls";
    CHECK(doubt_with(many + "\n") == "Security-Client: entry 33: there are more than 32 entries");
    CHECK(doubt_with("Security-Client: tls;x=\"" + std::string(8192, 'a') + "\"\n") ==
          "Security-Client: the list is longer than 8192 octets");
    CHECK(doubt_with("Security-Verify: ,\n", "ACK sip:b@example.com SIP/2.0").empty());
    CHECK(doubt_with("P-Preferred-Identity: \"A\" <sip:a@example.com>, <tel:+4917>\n").empty());
    CHECK_FALSE(doubt_with("P-Preferred-Identity: <sip:a@example.com>, <sip:b@example.com>\n").empty());
    CHECK_FALSE(
        doubt_with("P-Preferred-Identity: <sip:a@example.com>\nP-Preferred-Identity: <sips:b@example.com>\n").empty());
    CHECK_FALSE(doubt_with("P-Asserted-Identity: nobody\n").empty());
}
