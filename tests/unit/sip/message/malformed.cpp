// What is no SIP message, why, and whether it can be answered. Cases of RFC 4475 are named by their section (E-7).
#include "tests/unit/sip/message/support.h"

#include "sip/message/edit.h"
#include "sip/message/headers.h"

using namespace gmgate::sip;
using namespace gmgate::sip::test;

namespace {

std::string replaced(std::string text, std::string_view what, std::string_view with) {
    return text.replace(text.find(what), what.size(), with);
}

std::string with_start(std::string_view start) {
    return replaced(message_with(""), "OPTIONS sip:b@example.com SIP/2.0", start);
}

}  // namespace

TEST_CASE("nothing, and nothing but line ends, is no message") {
    CHECK(reason_of("") == "empty message");
    CHECK(reason_of("\r\n\r\n") == "empty message");
}

TEST_CASE("E-7: extra white space in a request line is malformed (RFC 4475 3.1.2.7 to 3.1.2.9)") {
    CHECK(reason_of(with_start("OPTIONS sip:b@example.com; lr SIP/2.0")) == "white space in the start line");
    CHECK(reason_of(with_start("OPTIONS  sip:b@example.com SIP/2.0")) == "white space in the start line");
    CHECK(reason_of(with_start("OPTIONS sip:b@example.com  SIP/2.0")) == "white space in the start line");
    CHECK(reason_of(with_start("OPTIONS sip:b@example.com SIP/2.0 ")) == "white space in the start line");
    CHECK(reason_of(with_start("OPTIONS sip:b@example.com\tSIP/2.0")) == "start line has no SIP version");
    CHECK(reason_of(with_start(" OPTIONS sip:b@example.com SIP/2.0")) == "bad method in the start line");
}

TEST_CASE("E-7: a Request-URI in angle brackets is malformed (RFC 4475 3.1.2.6)") {
    CHECK(reason_of(with_start("OPTIONS <sip:b@example.com> SIP/2.0")) == "bad Request-URI");
}

TEST_CASE("a Request-URI needs a scheme and something after it") {
    for (const std::string_view uri : {"b@example.com", "sip:", ":b", "1sip:b", "s ip:b", "si?p:b"})
        CHECK_FALSE(reason_of(with_start("OPTIONS " + std::string(uri) + " SIP/2.0")).empty());
    CHECK(reason_of(with_start("OPTIONS nobodyKnowsThisScheme:totallyopaquecontent SIP/2.0")).empty());
}

TEST_CASE("E-7: another SIP version is named as such, so that it can be answered 505 (RFC 4475 3.1.2.16)") {
    CHECK(reason_of(with_start("OPTIONS sip:b@example.com SIP/7.0")) == "SIP version not supported");
    CHECK(reason_of(with_start("OPTIONS sip:b@example.com SIP/2.1")) == "SIP version not supported");
    CHECK(reason_of(with_start("OPTIONS sip:b@example.com HTTP/1.1")) == "bad SIP version in the start line");
    CHECK(reason_of(with_start("OPTIONS sip:b@example.com SIP/2")) == "bad SIP version in the start line");
    CHECK(reason_of(with_start("SIP/7.0 200 OK")) == "SIP version not supported");
    CHECK(reason_of(with_start("OPTIONS sip:b@example.com sip/2.0")).empty());
}

TEST_CASE("E-7: a status is three digits within 100 to 699 (RFC 4475 3.1.2.19)") {
    for (const std::string_view line :
         {"SIP/2.0 4294967301 better not break the receiver", "SIP/2.0 099 low", "SIP/2.0 700 high", "SIP/2.0 20 OK",
          "SIP/2.0 20x OK", "SIP/2.0  200 OK", "SIP/2.0 ", "SIP/2.0"})
        CHECK_FALSE(reason_of(with_start(line)).empty());
}

TEST_CASE("control characters in the start line and in header names are malformed") {
    using namespace std::string_view_literals;
    CHECK(reason_of(with_start("OPTIONS sip:b@exa\x01mple.com SIP/2.0")) == "control character in the start line");
    CHECK(reason_of(with_start("OPTIONS sip:b@example.com\x7f SIP/2.0")) == "control character in the start line");
    CHECK(reason_of(with_start("OPTIONS sip:b\0@example.com SIP/2.0"sv)) == "NUL in the header section");
    CHECK(reason_of(message_with("X-\x02: 1\n")) == "bad header field name");
    CHECK(reason_of(message_with("Requ\x02ire: 1\n")) == "bad header field name");
}

TEST_CASE("a NUL or a lone CR in the header section is malformed, wherever it stands") {
    using namespace std::string_view_literals;
    CHECK(reason_of(message_with("Subject: a\0b\n"sv)) == "NUL in the header section");
    CHECK(reason_of(message_with("Subject: a\n b\0\n"sv)) == "NUL in the header section");
    CHECK(reason_of(message_with("Subject: a\rSecurity-Client: tls\n")) == "CR without LF");
    CHECK(reason_of(with_start("OPTIONS sip:b@example.com\r SIP/2.0")) == "CR without LF");
}

TEST_CASE("a header line without colon or without name is malformed") {
    CHECK(reason_of(message_with("Subject\n")) == "header field without a colon");
    CHECK(reason_of(message_with(": 1\n")) == "bad header field name");
    CHECK(reason_of(message_with("Sub ject: 1\n")) == "bad header field name");
    CHECK(reason_of(with_start("OPTIONS sip:b@example.com SIP/2.0\r\n folded: 1")) == "bad header field name");
}

TEST_CASE("a header section that does not end is malformed") {
    std::string bytes = message_with("");
    bytes.resize(bytes.size() - 2);
    CHECK(reason_of(bytes) == "header section does not end");
    CHECK(reason_of("OPTIONS sip:b@example.com SIP/2.0") == "start line does not end");
}

TEST_CASE("E-7: Via, From, To, Call-ID and CSeq are mandatory (RFC 4475 3.3.1) and not empty") {
    const std::string whole = message_with("");
    for (const std::string_view name : {"Via", "From", "To", "Call-ID", "CSeq"}) {
        const std::size_t begin = whole.find("\r\n" + std::string(name) + ":") + 2;
        const std::size_t end = whole.find("\r\n", begin);
        std::string without = whole;
        without.erase(begin, end + 2 - begin);
        CHECK(reason_of(without) == std::string(name) + " is missing");
        std::string empty = whole;
        empty.replace(begin, end - begin, std::string(name) + ":");
        CHECK(reason_of(empty) == "a mandatory header field is empty");
    }
}

TEST_CASE("E-7: what must be single may not occur twice (RFC 4475 3.3.8, 3.3.9)") {
    for (const std::string_view line : {"From: <sip:x@y>;tag=2\n", "t: <sip:x@y>\n", "i: 2\n", "CSeq: 8 OPTIONS\n"})
        CHECK(reason_of(message_with(line)) == "a header field that must be single occurs twice");
    CHECK(reason_of(message_with("Content-Length: 0\nl: 0\n")) == "a header field that must be single occurs twice");
    CHECK(reason_of(message_with("Max-Forwards: 70\nMax-Forwards: 5\n")) ==
          "a header field that must be single occurs twice");
}

TEST_CASE("E-7: Content-Length is one number within the bytes (RFC 4475 3.1.2.2, 3.1.2.3)") {
    CHECK(reason_of(message_with("Content-Length: 9999\n")) == "Content-Length is larger than the message");
    for (const std::string_view value : {"-999", "+1", "0x0", "1 1", "4294967296", "99999999999999999999", "0,0"})
        CHECK(reason_of(message_with("Content-Length: " + std::string(value) + "\n")) == "bad Content-Length");
    CHECK(reason_of(message_with("Content-Length:\n")) == "a mandatory header field is empty");
}

TEST_CASE("E-7: CSeq is a number below 2^31 and the request's method (RFC 4475 3.1.2.4, 3.1.2.17)") {
    const auto with_cseq = [](std::string_view value) { return replaced(message_with(""), "7 OPTIONS", value); };
    CHECK(reason_of(with_cseq("2147483647 OPTIONS")).empty());
    CHECK(reason_of(with_cseq("0009\r\n  OPTIONS")).empty());
    CHECK(reason_of(with_cseq("2147483648 OPTIONS")) == "bad CSeq number");
    CHECK(reason_of(with_cseq("36893488147419103232 OPTIONS")) == "bad CSeq number");
    CHECK(reason_of(with_cseq("-1 OPTIONS")) == "bad CSeq number");
    CHECK(reason_of(with_cseq("OPTIONS")) == "bad CSeq number");
    CHECK(reason_of(with_cseq("7OPTIONS")) == "bad method in CSeq");
    CHECK(reason_of(with_cseq("7")) == "bad method in CSeq");
    CHECK(reason_of(with_cseq("7 OPTIONS x")) == "bad method in CSeq");
    CHECK(reason_of(with_cseq("7 INVITE")) == "CSeq method differs from the request");
    CHECK(reason_of(with_cseq("7 options")) == "CSeq method differs from the request");
}

TEST_CASE("an error says where") {
    const std::string bytes = message_with("Subject\n");
    const auto message = Message::parse(std::string_view(bytes));
    REQUIRE_FALSE(message);
    CHECK(message.error().offset == bytes.find("Subject"));
}

TEST_CASE("a malformed request with all of Via, From, To, Call-ID and CSeq is answerable") {
    const std::string bytes = message_with("Content-Length: x\n");
    const auto message = Message::parse(std::string_view(bytes));
    REQUIRE_FALSE(message);
    REQUIRE(message.error().answerable);
    const auto text = make_bad_request(bytes, message.error());
    REQUIRE(text);
    const auto answer = Message::parse(std::string_view(*text));
    REQUIRE(answer);
    CHECK(answer->status() == 400);
    CHECK(answer->reason_phrase() == "bad Content-Length");
    CHECK(answer->value(HeaderId::via) == "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1");
    CHECK(answer->value(HeaderId::cseq) == "7 OPTIONS");
    CHECK_FALSE(tag_of(*answer, HeaderId::to).empty());
    CHECK(make_bad_request(bytes, message.error()) == text);  // a retransmission gets the same To tag
}

TEST_CASE("an answer steps over the broken line and copies the fields after it") {
    using namespace std::string_view_literals;
    for (const std::string_view broken :
         {"no colon here\n"sv, "Subject: \0\n"sv, "Subject: a\rb\n"sv, " fold: x\n"sv, ": x\n"sv}) {
        std::string bytes = message_with("");
        bytes.insert(bytes.find("Via:"), crlf(broken));
        const auto message = Message::parse(std::string_view(bytes));
        REQUIRE_FALSE(message);
        CHECK(message.error().answerable);
        const auto text = make_bad_request(bytes, message.error());
        REQUIRE(text);
        CHECK(Message::parse(std::string_view(*text)));
    }
}

TEST_CASE("an unknown method with another one in CSeq is answered 501, a known one 400") {
    for (const auto& [method, status] : {std::pair("NEWMETHOD", "501"), std::pair("BYE", "400")}) {
        const std::string bytes = with_start(std::string(method) + " sip:b@example.com SIP/2.0");
        const auto message = Message::parse(std::string_view(bytes));
        REQUIRE_FALSE(message);
        const auto text = make_bad_request(bytes, message.error());
        REQUIRE(text);
        CHECK(text->substr(8, 3) == status);
    }
}

TEST_CASE("a request of another SIP version is answered 505") {
    const std::string bytes = with_start("OPTIONS sip:b@example.com SIP/7.0");
    const auto message = Message::parse(std::string_view(bytes));
    REQUIRE_FALSE(message);
    const auto text = make_bad_request(bytes, message.error());
    REQUIRE(text);
    CHECK(text->starts_with("SIP/2.0 505 Version Not Supported\r\n"));
}

TEST_CASE("responses, ACKs and what lacks a field to copy are not answerable") {
    const auto answerable = [](const std::string& bytes) {
        const auto message = Message::parse(std::string_view(bytes));
        REQUIRE_FALSE(message);
        CHECK(make_bad_request(bytes, message.error()).has_value() == message.error().answerable);
        return message.error().answerable;
    };
    CHECK_FALSE(answerable(message_with("Content-Length: x\n", "SIP/2.0 200 OK")));
    CHECK_FALSE(answerable(message_with("Content-Length: x\n", "ACK sip:b@example.com SIP/2.0")));
    CHECK_FALSE(answerable(replaced(message_with("Content-Length: x\n"), "Call-ID", "Call-IX")));
    CHECK_FALSE(answerable("garbage"));
}
