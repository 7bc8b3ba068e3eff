// Edits on a message, and the responses made from one.
#include "tests/unit/sip/message/support.h"

#include "sip/message/edit.h"
#include "sip/message/headers.h"

using namespace gmgate::sip;
using namespace gmgate::sip::test;

namespace {

/// The header lines after CSeq (what message_with got as `extra`), edited by `change`.
template <class Change>
std::string edited(std::string_view extra, Change&& change) {
    constexpr std::string_view kLength = "l: 0\n";  // what leaves has one, and stays as it came
    const std::string bytes = message_with(std::string(extra) + std::string(kLength));
    const auto message = Message::parse(bytes);
    REQUIRE(message);
    Edit edit(*message);
    change(edit);
    const std::string text = edit.to_string();
    CHECK(Message::parse(text));
    const std::size_t cseq = text.find("CSeq");
    std::string tail = text.substr(text.find("\r\n", cseq) + 2);
    std::erase(tail, '\r');
    REQUIRE(tail.ends_with("\n"));
    REQUIRE(tail.find(kLength) != std::string::npos);
    tail.erase(tail.find(kLength), kLength.size());
    return tail.substr(0, tail.size() - 1);
}

}  // namespace

TEST_CASE("without edits the message stays as it is, octet for octet") {
    const std::string bytes = message_with("sUbJeCt  :\t odd \n  folded  \nX:\nContent-Length: 6\n",
                                           "MESSAGE sip:b@example.com SIP/2.0", "body\r\n");
    const auto message = Message::parse(bytes);
    REQUIRE(message);
    const Edit edit(*message);
    CHECK(edit.empty());
    CHECK(edit.to_string() == bytes);
}

TEST_CASE("fields are removed first, last and side by side") {
    CHECK(edited("A: 1\nB: 2\nC: 3\n", [](Edit& e) { e.remove_all("a"); }) == "B: 2\nC: 3\n");
    CHECK(edited("A: 1\nB: 2\nC: 3\n", [](Edit& e) { e.remove_all("C"); }) == "A: 1\nB: 2\n");
    CHECK(edited("A: 1\nB: 2\nC: 3\n", [](Edit& e) { e.remove_field(6), e.remove_field(5); }) == "C: 3\n");
    CHECK(edited("A: 1\nA: 2\n f\nA: 3\n", [](Edit& e) { e.remove_all("A"); }).empty());
    CHECK(edited("A: 1\n", [](Edit& e) { e.remove_field(99); }) == "A: 1\n");
}

TEST_CASE("C-16: remove_all takes every field of an id, and may be asked twice") {
    CHECK(edited("Security-Client: tls\nX: 1\nSECURITY-client: digest\n", [](Edit& e) {
              e.remove_all(HeaderId::security_client);
              e.remove_all(HeaderId::security_client);
              e.remove_all("security-client");
          }) == "X: 1\n");
}

TEST_CASE("a value is replaced, its name stays as it came") {
    CHECK(edited("mAx-Forwards  : 70\n", [](Edit& e) { e.replace_value(5, "69"); }) == "mAx-Forwards  : 69\n");
    CHECK(edited("Subject: a\n b\n", [](Edit& e) { e.replace_value(5, "c"); }) == "Subject: c\n");
    CHECK(edited("Subject:\n", [](Edit& e) { e.replace_value(5, "c"); }) == "Subject:c\n");
}

TEST_CASE("lines are inserted before a field, first and last, in the order given") {
    CHECK(edited("Route: 1\nRoute: 2\n", [](Edit& e) {
              e.append("Z: 1");
              e.insert_before(HeaderId::route, "A: 1");
              e.insert_before(HeaderId::route, "B: 1");
              e.insert_before(HeaderId::path, "Y: 1");
          }) == "A: 1\nB: 1\nRoute: 1\nRoute: 2\nZ: 1\nY: 1\n");
}

TEST_CASE("the line prepended last comes first, before what is inserted there") {
    const std::string bytes = message_with("");
    const auto message = Message::parse(bytes);
    REQUIRE(message);
    Edit edit(*message);
    edit.insert_before(HeaderId::via, "C: 1");
    edit.prepend("B: 1");
    edit.prepend("A: 1");
    CHECK(edit.to_string().find("SIP/2.0\r\nA: 1\r\nB: 1\r\nC: 1\r\nVia: ") != std::string::npos);
}

TEST_CASE("an insertion before a field stays when the field goes") {
    CHECK(edited("Route: 1\nX: 1\n", [](Edit& e) {
              e.remove_all(HeaderId::route);
              e.insert_before(HeaderId::route, "Route: <sip:core;lr>");
          }) == "Route: <sip:core;lr>\nX: 1\n");
}

TEST_CASE("the start line is replaced") {
    const std::string bytes = message_with("l: 0\n");
    const auto message = Message::parse(bytes);
    REQUIRE(message);
    Edit edit(*message);
    edit.set_start_line("OPTIONS sip:c@example.com SIP/2.0");
    CHECK(edit.to_string() == message_with("l: 0\n", "OPTIONS sip:c@example.com SIP/2.0"));
}

TEST_CASE("A-18 A-19: an option tag goes, others stay, an empty field goes with it") {
    const auto without = [](std::string_view lines) {
        return edited(lines, [](Edit& e) { CHECK(e.remove_option_tag(HeaderId::require, "sec-agree")); });
    };
    CHECK(without("Require: sec-agree\n").empty());
    CHECK(without("Require: sec-agree, precondition\n") == "Require: precondition\n");
    CHECK(without("Require: precondition, sec-agree\n") == "Require: precondition\n");
    CHECK(without("Require: a,Sec-Agree , b\n") == "Require: a , b\n");
    CHECK(without("Require: sec-agree, SEC-AGREE\n").empty());
    CHECK(without("Require: sec-agree,a, sec-agree\n") == "Require: a\n");
    CHECK(without("Require: a\nX: 1\nRequire: sec-agree\nRequire: sec-agree, b\n") == "Require: a\nX: 1\nRequire: b\n");
    CHECK(without("Require: ,sec-agree,\n").empty());
    CHECK(without("Require: sec-agree,\n  precondition\n") == "Require: precondition\n");
}

TEST_CASE("A-19: a tag that is not there changes nothing and says so") {
    CHECK(edited("Require: sec-agreement, a\n", [](Edit& e) {
              CHECK_FALSE(e.remove_option_tag(HeaderId::require, "sec-agree"));
              CHECK_FALSE(e.remove_option_tag(HeaderId::proxy_require, "a"));
              CHECK(e.empty());
          }) == "Require: sec-agreement, a\n");
}

TEST_CASE("G-30: two tags of one field are taken out one after the other") {
    const auto both = [](Edit& e) {
        CHECK(e.remove_option_tag(HeaderId::proxy_require, "sec-agree"));
        CHECK(e.remove_option_tag(HeaderId::proxy_require, "mediasec"));
        CHECK_FALSE(e.remove_option_tag(HeaderId::proxy_require, "mediasec"));
    };
    CHECK(edited("Proxy-Require: sec-agree, mediasec\n", both).empty());
    CHECK(edited("Proxy-Require: mediasec, x, sec-agree\n", both) == "Proxy-Require: x\n");
    CHECK(edited("Proxy-Require: mediasec\nProxy-Require: sec-agree\n", both).empty());
}

TEST_CASE("removing a field wins over what was done to its value") {
    CHECK(edited("Require: a, b\nX: 1\n", [](Edit& e) {
              e.remove_option_tag(HeaderId::require, "a");
              e.remove_all(HeaderId::require);
              e.replace_value(5, "c");
          }) == "X: 1\n");
}

TEST_CASE("two replacements of one value: the later wins") {
    CHECK(edited("X: 1\n", [](Edit& e) { e.replace_value(5, "2"), e.replace_value(5, "3"); }) == "X: 3\n");
}

TEST_CASE("octets are replaced and inserted by offset") {
    const std::string bytes = message_with("X: abc\nl: 0\n");
    const auto message = Message::parse(bytes);
    REQUIRE(message);
    const std::size_t at = bytes.find("abc");
    Edit edit(*message);
    edit.replace(at + 2, at + 3, {});
    edit.replace(at, at + 1, "ZZ");
    edit.replace(at + 3, at + 3, "!");
    CHECK(edit.to_string() == message_with("X: ZZb!\nl: 0\n"));
}

TEST_CASE("a new body corrects Content-Length, in compact form too, or adds it") {
    const auto body_of = [](std::string_view lines) {
        const std::string bytes = message_with(lines, "MESSAGE sip:b@example.com SIP/2.0", "old");
        const auto message = Message::parse(bytes);
        REQUIRE(message);
        Edit edit(*message);
        edit.set_body("brand new");
        return edit.to_string();
    };
    const auto expected = [](std::string_view lines) {
        return message_with(lines, "MESSAGE sip:b@example.com SIP/2.0", "brand new");
    };
    CHECK(body_of("Content-Length: 3\n") == expected("Content-Length: 9\n"));
    CHECK(body_of("l:3\nX: 1\n") == expected("l:9\nX: 1\n"));
    CHECK(body_of("X: 1\n") == expected("X: 1\nContent-Length: 9\n"));
}

TEST_CASE("RFC 3261 §18.3: whatever leaves has one Content-Length, and it is that of what was read as body") {
    const auto forwarded = [](std::string_view lines, std::string_view rest = "") {
        const std::string bytes = message_with(lines, "MESSAGE sip:b@example.com SIP/2.0", "old") + std::string(rest);
        const auto message = Message::parse(bytes);
        REQUIRE(message);
        return Edit(*message).to_string();
    };
    const auto expected = [](std::string_view lines, std::string_view body = "old") {
        return message_with(lines, "MESSAGE sip:b@example.com SIP/2.0", body);
    };
    CHECK(forwarded("") == expected("Content-Length: 3\n"));  // by UDP: to the end of the datagram
    CHECK(forwarded("X: 1\n", "er") == expected("X: 1\nContent-Length: 5\n", "older"));
    CHECK(forwarded("l: 3\n") == expected("l: 3\n"));                                             // as it came
    CHECK(forwarded("Content-Length:3\n", "INVITE smuggled") == expected("Content-Length:3\n"));  // cut
    for (const std::string_view odd : {"Content-Length : 3\n", "Content-Length:\n 3\n", "Content-Length: 003\n",
                                       "Content-Length: 3 \n", "Content-Length:   3\n"})
        CHECK(forwarded(std::string(odd) + "X: 1\n") == expected("Content-Length: 3\nX: 1\n"));
}

TEST_CASE("an edit that takes Content-Length away, or writes another one, does not stand") {
    const std::string bytes = message_with("l: 3\n", "MESSAGE sip:b@example.com SIP/2.0", "old");
    const auto message = Message::parse(bytes);
    REQUIRE(message);
    Edit removed(*message), changed(*message);
    removed.remove_all(HeaderId::content_length);
    changed.replace_value(*message->find(HeaderId::content_length), "0");
    CHECK(removed.to_string() == bytes);
    CHECK(changed.to_string() == bytes);
}

TEST_CASE("H-2: a line end inside a given text brings no header field of its own") {
    const std::string text = edited("X: 1\n", [](Edit& e) {
        e.append("Y: a\r\nP-Asserted-Identity: <sip:evil@example.com>");
        e.replace_value(5, "1\nRequire: x");
    });
    CHECK(text == "X: 1 Require: x\nY: a  P-Asserted-Identity: <sip:evil@example.com>\n");
}

TEST_CASE("RFC 3261 8.2.6: a response copies Vias, From, To, Call-ID and CSeq as they came and adds a To tag") {
    const std::string bytes = crlf(
        "OPTIONS sip:b@example.com SIP/2.0\nv: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1,\n SIP/2.0/UDP b\nf: \"A\" <sip:a@example.com>;tag=1\n"
        "Subject: x\nVia: SIP/2.0/TCP c\nt: <sip:b@example.com>\ni: 5\nCSEQ: 7 OPTIONS\nContent-Length: 2\n\nab");
    const auto request = Message::parse(bytes);
    REQUIRE(request);
    CHECK(
        make_response(*request, 494, "Security Agreement Required", "t1",
                      {"Security-Server: tls", "Require: sec-agree"}) ==
        crlf(
            "SIP/2.0 494 Security Agreement Required\nv: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1,\n SIP/2.0/UDP b\n"
            "f: \"A\" <sip:a@example.com>;tag=1\nVia: SIP/2.0/TCP c\nt: <sip:b@example.com>;tag=t1\ni: 5\nCSEQ: 7 OPTIONS\n"
            "Security-Server: tls\nRequire: sec-agree\nContent-Length: 0\n\n"));
}

TEST_CASE("RFC 3261 8.2.6.2: a To tag stays as it is, and 100 gets none") {
    const std::string bytes = message_with("Timestamp: 54\n");
    const auto request = Message::parse(bytes);
    REQUIRE(request);
    const std::string trying = make_response(*request, 100, "Trying", "t1");
    CHECK(trying.find(";tag=t1") == std::string::npos);
    CHECK(trying.find("Timestamp: 54\r\n") != std::string::npos);
    CHECK(make_response(*request, 200, "OK", "t1").find("Timestamp") == std::string::npos);
    std::string tagged = bytes;
    tagged.replace(tagged.find("b@example.com>\r\n"), 14, "b@example.com>;tag=9");
    const auto in_dialog = Message::parse(tagged);
    REQUIRE(in_dialog);
    CHECK(tag_of(*in_dialog, HeaderId::to) == "9");
    const std::string response = make_response(*in_dialog, 200, "OK", "t1");
    CHECK(response.find("tag=t1") == std::string::npos);
}

TEST_CASE("H-2: a response cannot be given a second line through its texts") {
    const std::string bytes = message_with("");
    const auto request = Message::parse(bytes);
    REQUIRE(request);
    const std::string text = make_response(*request, 400, "bad\r\nX: 1", "t", {"Warning: 399 a \"b\r\nY: 1\""});
    const auto response = Message::parse(text);
    REQUIRE(response);
    CHECK(response->field_count() == 7);
}

TEST_CASE("A Warning line holds no more than a quoted string may, and is cut") {
    CHECK(warning_line("plain: 1 of 2") == "Warning: 399 gmgate \"plain: 1 of 2\"");
    CHECK(warning_line("a \"b\" \\ c\r\nX: 1\t\xc3\xa4") == "Warning: 399 gmgate \"a 'b' ' c??X: 1???\"");
    CHECK(warning_line(std::string(1000, 'a')).size() == std::string_view("Warning: 399 gmgate \"\"").size() + 240);
}

TEST_CASE("RFC 3261 §7.3.1: a CSeq on several lines leaves on one; on one line it stays as it came") {
    const auto forwarded = [](std::string_view cseq) {
        std::string bytes = message_with("l: 0\n");
        const auto at = bytes.find("CSeq:");
        const auto end = bytes.find("\r\n", at);
        const std::string method = bytes.substr(bytes.rfind(' ', end) + 1, end - bytes.rfind(' ', end) - 1);
        std::string written(cseq);
        written.replace(written.find("METHOD"), 6, method);
        bytes.replace(at, end - at, written);
        const auto message = Message::parse(bytes);
        REQUIRE(message);
        const std::string text = Edit(*message).to_string();
        CHECK(Message::parse(text));
        const auto from = text.find("CS");
        std::string line = text.substr(from, text.find("\r\n", from) - from);
        return line.replace(line.find(method), method.size(), "METHOD");
    };
    CHECK(forwarded("CSeq: 7\r\n METHOD") == "CSeq: 7 METHOD");
    CHECK(forwarded("CSeq:\r\n\t7 \r\n\t METHOD") == "CSeq: 7 METHOD");
    CHECK(forwarded("CSEQ:007\r\n METHOD") == "CSEQ: 007 METHOD");
    CHECK(forwarded("CSeq:7   METHOD") == "CSeq:7   METHOD");
}
