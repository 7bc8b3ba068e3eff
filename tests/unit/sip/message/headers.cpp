// Typed views of header values: lists, URIs, addresses, Via, parameters.
#include "tests/unit/sip/message/support.h"

#include <vector>

#include "sip/message/headers.h"

using namespace gmgate;
using namespace gmgate::sip;
using namespace gmgate::sip::test;

namespace {

std::vector<std::string> parts(std::string_view text, char separator) {
    std::vector<std::string> out;
    Split split(text, separator);
    while (const auto element = split.next()) out.emplace_back(*element);
    return out;
}

using Parts = std::vector<std::string>;

}  // namespace

TEST_CASE("Split trims elements and returns empty ones") {
    CHECK(parts(" a , b,,c ", ',') == Parts{"a", "b", "", "c"});
    CHECK(parts("", ',') == Parts{""});
    CHECK(parts(",", ',') == Parts{"", ""});
    CHECK(parts("a\r\n , b", ',') == Parts{"a", "b"});
}

TEST_CASE("Split leaves quoted strings, their escapes and <…> alone") {
    CHECK(parts(R"("a,b" <sip:c,d@e>, f)", ',') == Parts{R"("a,b" <sip:c,d@e>)", "f"});
    CHECK(parts(R"("a\",b",c)", ',') == Parts{R"("a\",b")", "c"});
    CHECK(parts(R"("a\\",c)", ',') == Parts{R"("a\\")", "c"});
    CHECK(parts(R"(<sip:"a,b>,c)", ',') == Parts{R"(<sip:"a,b>)", "c"});
    CHECK(parts(R"("<",c)", ',') == Parts{R"("<")", "c"});
    CHECK(parts(R"(a,"b,c)", ',') == Parts{"a", R"("b,c)"});
    CHECK(parts("<sip:a;b>;c", ';') == Parts{"<sip:a;b>", "c"});
    CHECK(parts("\"a\\", ',') == Parts{"\"a\\"});
}

TEST_CASE("a SIP URI gives user, host, port, parameters and headers") {
    const auto uri =
        Uri::parse("sips:alice;day=tuesday:secret@[2001:db8::9]:5061;transport=tcp;lr?subject=x%20y&priority=urgent");
    REQUIRE(uri);
    CHECK(uri->scheme == "sips");
    CHECK(uri->is_sip());
    CHECK(uri->user == "alice;day=tuesday");
    CHECK(uri->host == "[2001:db8::9]");
    CHECK(uri->port == Port(5061));
    CHECK(uri->parameters == "transport=tcp;lr");
    CHECK(uri->headers == "subject=x%20y&priority=urgent");
    CHECK(uri->parameter("Transport") == "tcp");
    CHECK(uri->parameter("lr") == "");
    CHECK_FALSE(uri->parameter("maddr"));
}

TEST_CASE("a SIP URI may be no more than a host") {
    const auto uri = Uri::parse("sip:example.com");
    REQUIRE(uri);
    CHECK(uri->user.empty());
    CHECK(uri->host == "example.com");
    CHECK(uri->port == Port(0));
}

TEST_CASE("tel and other URIs have their number or content as user") {
    const auto tel = Uri::parse("tel:+1-201-555-0123;phone-context=example.com");
    REQUIRE(tel);
    CHECK(tel->user == "+1-201-555-0123");
    CHECK(tel->host.empty());
    CHECK(tel->parameter("phone-context") == "example.com");
    const auto urn = Uri::parse("urn:service:sos.police");
    REQUIRE(urn);
    CHECK(urn->scheme == "urn");
    CHECK(urn->user == "service:sos.police");
    CHECK_FALSE(urn->is_sip());
}

TEST_CASE("what two parsers could read differently is no URI") {
    for (const std::string_view text : {"",
                                        "sip:",
                                        ":a",
                                        "example.com",
                                        "sip:a@b@c",
                                        "sip:@b",
                                        "sip:a@",
                                        "sip:a@b:",
                                        "sip:a@b:0",
                                        "sip:a@b:65536",
                                        "sip:a@b:5x",
                                        "sip:a b@c",
                                        "sip:a@[2001:db8::1",
                                        "sip:a@[zz]",
                                        "sip:a@b\r\n",
                                        "sip:<a>@b",
                                        "sip:a@b c",
                                        "1x:a",
                                        "tel:",
                                        "sip:a@b]"})
        CHECK_MESSAGE(!Uri::parse(text), text);
}

TEST_CASE("a name-addr gives display name, URI and header parameters") {
    const auto address =
        NameAddr::parse(R"( "J. \"R\" <x>" <sip:j@example.com;transport=tcp> ; tag = "a;b" ;expires=60)");
    REQUIRE(address);
    CHECK(address->display_name == R"("J. \"R\" <x>")");
    CHECK(address->uri == "sip:j@example.com;transport=tcp");
    CHECK(address->parameter("TAG") == "a;b");
    CHECK(address->parameter("expires") == "60");
    CHECK_FALSE(address->parameter("transport"));
}

TEST_CASE("parameters after an addr-spec belong to the header") {
    const auto address = NameAddr::parse("sip:j@example.com;tag=1");
    REQUIRE(address);
    CHECK(address->uri == "sip:j@example.com");
    CHECK(address->parameter("tag") == "1");
}

TEST_CASE("Contact: * is an address with the URI *") {
    const auto address = NameAddr::parse("*");
    REQUIRE(address);
    CHECK(address->uri == "*");
}

TEST_CASE("E-7: broken addresses are none (RFC 4475 3.1.2.5, 3.1.2.14)") {
    for (const std::string_view text : {"", "<>", "<sip:a@b", R"("Mr. J. User <sip:j@example.com>)", "<sip:a@b> x",
                                        "<sip:a@b>,", "a \"b\" c", "<sip:a b>", "< <sip:a@b>"})
        CHECK_MESSAGE(!NameAddr::parse(text), text);
}

TEST_CASE("a Via gives transport, host, port and branch") {
    const auto via = Via::parse("SIP/2.0/UDP [2001:db8::1]:5060;branch=z9hG4bKa;rport");
    REQUIRE(via);
    CHECK(via->transport == "UDP");
    CHECK(via->host == "[2001:db8::1]");
    CHECK(via->port == Port(5060));
    CHECK(via->branch() == "z9hG4bKa");
    CHECK(via->parameter("rport") == "");
    CHECK(via->sent_by_address() == Address::parse("2001:db8::1"));
}

TEST_CASE("E-7: white space may stand around every separator of a Via (RFC 4475 3.1.1.1)") {
    const auto via = Via::parse("SIP  /   2.0\r\n /UDP\r\n    192.0.2.2 : 5060 ; branch = 390skdjuw");
    REQUIRE(via);
    CHECK(via->transport == "UDP");
    CHECK(via->host == "192.0.2.2");
    CHECK(via->port == Port(5060));
    CHECK(via->branch() == "390skdjuw");
}

TEST_CASE("broken Vias are none") {
    for (const std::string_view text :
         {"", "SIP/2.0/UDP", "SIP/2.0/UDP ", "SIP/2.0 192.0.2.1", "/2.0/UDP a", "SIP/2.0/UDP a:0", "SIP/2.0/UDP a b",
          "SIP/2.0/ a", "SIP/2.0/UDP 2001:db8::1", "SIP/2.0/UDP ;branch=1"})
        CHECK_MESSAGE(!Via::parse(text), text);
}

TEST_CASE("Vias are counted over fields and comma lists") {
    const std::string bytes = message_with("v: SIP/2.0/TCP a , SIP/2.0/UDP b;branch=\"x,y\"\n");
    const auto message = Message::parse(bytes);
    REQUIRE(message);
    CHECK(via_count(*message) == 3);
    CHECK(top_via(*message)->branch() == "z9hG4bK1");
}

TEST_CASE("parameters are found without regard to case, blanks allowed, empty ones skipped") {
    CHECK(find_parameter("a ; B = c;; d=\"e;f\"", "b") == "c");
    CHECK(find_parameter("a ; B = c;; d=\"e;f\"", "D") == "\"e;f\"");
    CHECK(find_parameter("a", "a") == "");
    CHECK_FALSE(find_parameter("ab=1", "a"));
    CHECK_FALSE(find_parameter("", "a"));
    ParameterList list(" ; a=; b");
    const auto first = list.next();
    REQUIRE(first);
    CHECK(first->has_value);
    CHECK(list.next()->name == "b");
    CHECK_FALSE(list.next());
}

TEST_CASE("unquote takes off one pair of quotes") {
    CHECK(unquote("\"a\"") == "a");
    CHECK(unquote("\"\"").empty());
    CHECK(unquote("\"") == "\"");
    CHECK(unquote("a") == "a");
}

TEST_CASE("A-19: option tags are found whole, in any field and any case") {
    const std::string bytes = message_with("Require: precondition\nRequire: foo, Sec-Agree\nk: sec-agreement\n");
    const auto message = Message::parse(bytes);
    REQUIRE(message);
    CHECK(has_option_tag(*message, HeaderId::require, "sec-agree"));
    CHECK_FALSE(has_option_tag(*message, HeaderId::require, "sec"));
    CHECK_FALSE(has_option_tag(*message, HeaderId::supported, "sec-agree"));
    CHECK_FALSE(has_option_tag(*message, HeaderId::proxy_require, "sec-agree"));
}

TEST_CASE("a contact's expiry is its parameter, else the header; malformed is 3600, too large clamps") {
    const std::string bytes = message_with("Expires: 60\n");
    const auto message = Message::parse(bytes);
    REQUIRE(message);
    CHECK(contact_expires(*message, *NameAddr::parse("<sip:a@b>;expires=7")) == 7);
    CHECK(contact_expires(*message, *NameAddr::parse("<sip:a@b>;expires=\"7\"")) == 7);
    CHECK(contact_expires(*message, *NameAddr::parse("<sip:a@b>;expires=-7")) == 3600);
    CHECK(contact_expires(*message, *NameAddr::parse("<sip:a@b>;expires=99999999999")) == 4294967295U);
    CHECK(contact_expires(*message, *NameAddr::parse("<sip:a@b>")) == 60);
    const std::string plain = message_with("");
    const auto without = Message::parse(plain);
    REQUIRE(without);
    CHECK_FALSE(contact_expires(*without, *NameAddr::parse("<sip:a@b>")));
}

TEST_CASE("a tag is found in From and To, and absent otherwise") {
    const std::string bytes = message_with("");
    const auto message = Message::parse(bytes);
    REQUIRE(message);
    CHECK(tag_of(*message, HeaderId::from) == "1");
    CHECK(tag_of(*message, HeaderId::to).empty());
}

TEST_CASE("numbers are digits only and do not overflow") {
    CHECK(parse_u32("0") == 0);
    CHECK(parse_u32("0004294967295") == 4294967295U);
    for (const std::string_view text : {"", "4294967296", "-1", "+1", " 1", "1 ", "1a", "0x1"})
        CHECK_MESSAGE(!parse_u32(text), text);
}
