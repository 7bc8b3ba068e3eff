// A byte stream cut into messages, keep-alives seen, garbage refused.
#include "tests/unit/sip/message/support.h"

#include <chrono>

#include "sip/message/framer.h"
#include "tests/fuzz/invariants.h"

using namespace gmgate::sip;
using namespace gmgate::sip::test;

namespace {

std::string message_of(std::string_view body, std::string_view length_name = "Content-Length") {
    return message_with(std::string(length_name) + ": " + std::to_string(body.size()) + "\n",
                        "MESSAGE sip:b@example.com SIP/2.0", body);
}

/// The reason of the first error; "" when there is none.
std::string error_of(std::string_view bytes) {
    invariants::check_framing(bytes);
    Framer framer;
    REQUIRE(framer.feed(bytes));
    while (true) {
        const FrameResult result = framer.next();
        if (result.frame == Frame::need_more) return {};
        if (result.frame == Frame::error) return std::string(result.reason);
    }
}

}  // namespace

TEST_CASE("RFC 3261 18.3: messages are cut by Content-Length, in compact form and folded too") {
    const std::string one = message_of("hello", "l"), two = message_of("", "Content-Length"),
                      three = message_of("abc", "content-length \t");
    std::string four = message_of("x");
    four.replace(four.find("Content-Length: 1"), 17, "Content-Length:\r\n 1");
    Framer framer;
    REQUIRE(framer.feed(one + two + three + four));
    for (const std::string& expected : {one, two, three, four}) {
        const FrameResult result = framer.next();
        CHECK(result.frame == Frame::message);
        CHECK(result.bytes == expected);
    }
    CHECK(framer.next().frame == Frame::need_more);
    CHECK(framer.is_empty());
}

TEST_CASE("a message comes out when its last octet is there and not before") {
    const std::string text = message_of("hello");
    Framer framer;
    for (std::size_t i = 0; i + 1 < text.size(); ++i) {
        REQUIRE(framer.feed(text.substr(i, 1)));
        CHECK(framer.next().frame == Frame::need_more);
        CHECK_FALSE(framer.is_empty());
    }
    REQUIRE(framer.feed(text.substr(text.size() - 1)));
    const FrameResult result = framer.next();
    CHECK(result.frame == Frame::message);
    CHECK(result.bytes == text);
}

TEST_CASE("octet by octet or at once, the same comes out") {
    const std::string text =
        "\r\n" + message_of("\r\n\r\n") + "\r\n\r\n\r\n" + message_of("", "L") + "\r\n\r\n" + message_of("abc");
    invariants::check_framing(text);
    std::string lf_only = text;
    std::erase(lf_only, '\r');
    invariants::check_framing(lf_only);
    for (std::size_t cut = 0; cut <= text.size(); ++cut) {
        Framer whole, cut_once;
        REQUIRE(whole.feed(text));
        const std::string expected = invariants::drain(whole);
        REQUIRE(cut_once.feed(text.substr(0, cut)));
        std::string got = invariants::drain(cut_once);
        REQUIRE(cut_once.feed(text.substr(cut)));
        got += invariants::drain(cut_once);
        REQUIRE(got == expected);
    }
}

TEST_CASE("RFC 5626 3.5.1: a double CRLF is a ping, a single one is skipped") {
    Framer framer;
    REQUIRE(framer.feed("\r\n"));
    CHECK(framer.next().frame == Frame::need_more);
    CHECK(framer.is_empty());
    REQUIRE(framer.feed("\r\n"));
    CHECK(framer.next().frame == Frame::ping);
    CHECK(framer.next().frame == Frame::need_more);
    REQUIRE(framer.feed("\r\n" + message_of("")));
    CHECK(framer.next().frame == Frame::message);
    REQUIRE(framer.feed("\r\n"));
    CHECK(framer.next().frame == Frame::need_more);
    REQUIRE(framer.feed("\r\n\r\n\r\n"));
    CHECK(framer.next().frame == Frame::ping);
    CHECK(framer.next().frame == Frame::ping);
    CHECK(framer.next().frame == Frame::need_more);
}

TEST_CASE("pings go on for hours, and by the hundred at once before a message, but not without end") {
    Framer framer;
    for (int i = 0; i < 1000; ++i) {
        REQUIRE(framer.feed("\r\n\r\n"));
        REQUIRE(framer.next().frame == Frame::ping);
        REQUIRE(framer.next().frame == Frame::need_more);
    }
    std::string flood;
    for (int i = 0; i < 70; ++i) flood += "\r\n";
    REQUIRE(framer.feed(flood + message_of("after them")));
    for (int i = 0; i < 35; ++i) REQUIRE(framer.next().frame == Frame::ping);
    CHECK(framer.next().bytes == message_of("after them"));
    flood.clear();
    for (std::size_t i = 0; i <= kMaxKeepAlive; ++i) flood += "\r\n";
    CHECK(error_of(flood) == "too many keep-alives at once");
}

TEST_CASE("a stream message without Content-Length, or with a bad one, is an error with the head to answer") {
    const std::string text = message_with("X: 1\n");
    Framer framer;
    REQUIRE(framer.feed(text + "more"));
    const FrameResult result = framer.next();
    CHECK(result.frame == Frame::error);
    CHECK(result.reason == "Content-Length is missing");
    CHECK(result.bytes == text);
    CHECK(framer.next().frame == Frame::error);
    CHECK_FALSE(framer.feed("x"));
    CHECK(error_of(message_with("Content-Length: -1\n")) == "bad Content-Length");
    CHECK(error_of(message_with("Content-Length: 4294967296\n")) == "bad Content-Length");
    CHECK(error_of(message_with("Content-Length: 0\nl: 0\n")) == "Content-Length occurs twice");
}

TEST_CASE("what is not SIP is refused as soon as it shows") {
    CHECK(error_of("\x16\x03\x01") == "this is not SIP");
    CHECK(error_of("GET / HTTP/1.1\r\n") == "this is not SIP");
    CHECK(error_of("\rx") == "CR without LF");
    CHECK(error_of(std::string_view("OPTIONS \0", 9)) == "NUL in the header section");
    CHECK(error_of("OPTIONS sip:b@example.com SIP/2.0\r\nX: a\rb") == "CR without LF");
    CHECK(error_of(message_with("no colon\n")) == "header field without a colon");
}

TEST_CASE("a request whose start line is bad still comes out whole, so that it can be answered") {
    const std::string text = message_with("l: 0\n", "OPTIONS  sip:b@example.com SIP/7.0");
    Framer framer;
    REQUIRE(framer.feed(text));
    CHECK(framer.next().frame == Frame::message);
}

TEST_CASE("a limit of its own for who is not known: the whole message, and its body") {
    const auto error_within = [](MessageLimit limit, const std::string& text) {
        Framer framer;
        framer.set_limit(limit);
        REQUIRE(framer.feed(text));
        return std::string(framer.next().reason);
    };
    const std::string text = message_of(std::string(100, 'b'));
    CHECK(error_within({.message = text.size(), .body = 100}, text).empty());
    CHECK(error_within({.message = text.size() - 1}, text) == "message too large");
    CHECK(error_within({.body = 99}, text) == "message too large");
    CHECK(error_within({.body = 0}, message_of("")).empty());
    CHECK(error_within({.message = 300}, "OPTIONS sip:b@example.com SIP/2.0\r\nX: " + std::string(300, 'x')) ==
          "header section too large");
}

TEST_CASE("a message for a stream: one Content-Length, which is that of its body") {
    CHECK(is_one_frame(message_of("body")));
    CHECK(is_one_frame(message_of("")));
    CHECK_FALSE(is_one_frame(message_with("X: 1\n")));
    CHECK_FALSE(is_one_frame(message_of("body") + "x"));
    CHECK_FALSE(is_one_frame(message_of("body").substr(0, message_of("body").size() - 1)));
    CHECK_FALSE(is_one_frame(message_with("l: 0\nContent-Length: 0\n")));
    CHECK_FALSE(is_one_frame("OPTIONS sip:b@example.com SIP/2.0\r\nContent-Length: 0\r\n"));
    CHECK_FALSE(is_one_frame("hello"));
    CHECK_FALSE(is_one_frame(""));
}

TEST_CASE("limits: one message, and one read as large again, are held") {
    const std::string text = message_of("");
    CHECK(error_of(message_with("Content-Length: 65535\n")) == "message too large");
    CHECK(error_of("OPTIONS sip:b@example.com SIP/2.0\r\nX: " + std::string(kMaxMessage, 'x')) ==
          "header section too large");
    const std::size_t room = kMaxMessage - message_with("Content-Length: 60000\n").size();
    CHECK(room > 60000);
    CHECK(error_of(message_of(std::string(60000, 'b')) + text).empty());
    Framer framer;
    CHECK(framer.feed(std::string(kMaxMessage, 'x')));
    CHECK(framer.feed(std::string(kMaxMessage, 'x')));
    CHECK_FALSE(framer.feed("x"));
}

TEST_CASE("H-1: what was handed out is overwritten at the next call") {
    Framer framer;
    REQUIRE(
        framer.feed(message_with("WWW-Authenticate: Digest ck=\"0123\"\nl: 0\n", "SIP/2.0 401 Unauthorized") + "SIP"));
    const FrameResult result = framer.next();
    REQUIRE(result.frame == Frame::message);
    CHECK(result.bytes.find("0123") != std::string_view::npos);
    CHECK(framer.next().frame == Frame::need_more);
    CHECK(result.bytes.find_first_not_of('\0') ==
          std::string_view::npos);  // still inside the buffer, for "SIP" is held behind it
}

TEST_CASE("many small feeds cost no more than their octets") {
    // 60,000 octets of header section, one by one: a framer that searched from the front each time would look at 1.8
    // thousand million.
    const std::string text = "OPTIONS sip:b@example.com SIP/2.0\r\nX: " + std::string(60000, 'x');
    Framer framer;
    const auto start = std::chrono::steady_clock::now();
    for (const char c : text) {
        REQUIRE(framer.feed({&c, 1}));
        if (framer.next().frame != Frame::need_more) FAIL("no message yet");
    }
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(5));
}
