// Start line, header fields and body of a message that is in order, and the limits.
#include "tests/unit/sip_parse_support.h"

#include "sip/edit.h"

#include <type_traits>

#include "sip/headers.h"

using namespace gmgate::sip;
using namespace gmgate::sip::test;

namespace {

template <class T>
concept ParsesFrom = requires(T text) { Message::parse(std::forward<T>(text)); };

}  // namespace

// A message must not outlive its bytes, so it cannot be made from a temporary string.
static_assert(!ParsesFrom<std::string&&>);
static_assert(ParsesFrom<const std::string&>);
static_assert(ParsesFrom<std::string_view>);
static_assert(!std::is_default_constructible_v<Message>);
static_assert(!std::is_copy_constructible_v<OwnedMessage> && std::is_nothrow_move_constructible_v<OwnedMessage>);

TEST_CASE("a handset's REGISTER is read whole") {
    const std::string bytes = handset_register();
    const auto message = Message::parse(bytes);
    REQUIRE(message);
    CHECK(message->is_request());
    CHECK(message->method() == Method::register_);
    CHECK(message->method_name() == "REGISTER");
    CHECK(message->request_uri() == "sip:ims.mnc001.mcc001.3gppnetwork.org");
    CHECK(message->start_line() == "REGISTER sip:ims.mnc001.mcc001.3gppnetwork.org SIP/2.0");
    CHECK(message->cseq() == 1);
    CHECK(message->field_count() == 14);
    CHECK(message->value(HeaderId::call_id) == "apb03a0s09dkjdfglkj49111");
    CHECK(message->value(HeaderId::route).empty());
    CHECK(message->body().empty());
    CHECK(message->bytes() == bytes);
}

TEST_CASE("the fields cover the header section without a gap") {
    const std::string bytes = handset_register();
    const auto message = Message::parse(bytes);
    REQUIRE(message);
    std::size_t at = message->fields_begin();
    for (std::size_t i = 0; i < message->field_count(); ++i) {
        CHECK(message->field(i).begin == at);
        at = message->field(i).end;
    }
    CHECK(at == message->fields_end());
    CHECK(bytes.substr(at) == "\r\n");
}

TEST_CASE("a field index beyond the last gives an empty field") {
    const std::string bytes = handset_register();
    const auto message = Message::parse(bytes);
    REQUIRE(message);
    CHECK(message->field(message->field_count()).name.empty());
}

TEST_CASE("a response has status, reason phrase and the CSeq's method") {
    const std::string bytes = message_with("", "SIP/2.0 494 Security Agreement Required");
    const auto message = Message::parse(bytes);
    REQUIRE(message);
    CHECK(message->is_response());
    CHECK(message->status() == 494);
    CHECK(message->reason_phrase() == "Security Agreement Required");
    CHECK(message->method() == Method::options);
    CHECK(message->method_name() == "OPTIONS");
    CHECK(message->request_uri().empty());
}

TEST_CASE("E-7: a reason phrase may be empty, with its space (RFC 4475 3.1.1.13) or without") {
    for (const std::string_view line : {"SIP/2.0 100 ", "SIP/2.0 100"}) {
        const std::string bytes = message_with("", line);
        const auto message = Message::parse(bytes);
        REQUIRE(message);
        CHECK(message->status() == 100);
        CHECK(message->reason_phrase().empty());
    }
}

TEST_CASE("A-4: for_each visits the fields of one name in their order") {
    const std::string bytes = message_with("Security-Client: tls\nX: 1\nsecurity-client: digest\n");
    const auto message = Message::parse(bytes);
    REQUIRE(message);
    std::string values;
    message->for_each(HeaderId::security_client, [&](const HeaderField& field) { values.append(field.value).append(" "); });
    CHECK(values == "tls digest ");
    CHECK(message->find(HeaderId::security_client, 6) == 7);
    CHECK_FALSE(message->find(HeaderId::security_client, 8));
}

TEST_CASE("header names are known in any case and in compact form") {
    CHECK(header_id("Security-Client") == HeaderId::security_client);
    CHECK(header_id("sEcUrItY-cLiEnT") == HeaderId::security_client);
    CHECK(header_id("l") == HeaderId::content_length);
    CHECK(header_id("L") == HeaderId::content_length);
    CHECK(header_id("v") == HeaderId::via);
    CHECK(header_id("k") == HeaderId::supported);
    CHECK(header_id("x") == HeaderId::session_expires);
    CHECK(header_id("") == HeaderId::other);
    CHECK(header_id("z") == HeaderId::other);
    CHECK(header_id("?") == HeaderId::other);
}

TEST_CASE("every known header name maps to its id and back") {
    for (unsigned i = 1; i < static_cast<unsigned>(HeaderId::kCount_); ++i) {
        const auto id = static_cast<HeaderId>(i);
        const std::string_view name = to_string(id);
        CHECK_FALSE(name.empty());
        CHECK(header_id(name) == id);
    }
    CHECK(to_string(HeaderId::other).empty());
}

TEST_CASE("a header name is compared whole: one changed octet makes it unknown") {
    for (unsigned i = 1; i < static_cast<unsigned>(HeaderId::kCount_); ++i) {
        const std::string name(to_string(static_cast<HeaderId>(i)));
        for (std::size_t at = 0; at < name.size(); ++at)
            for (int c = 0; c < 256; ++c) {
                std::string changed = name;
                changed[at] = static_cast<char>(c);
                if (same_token(changed, name)) continue;
                if (header_id(changed) == static_cast<HeaderId>(i)) FAIL(changed);
            }
        CHECK(header_id(name + "x") != static_cast<HeaderId>(i));
    }
    CHECK(header_id("kcf") == HeaderId::other);
}

TEST_CASE("folded values keep their folds and lose the white space around") {
    const std::string bytes = message_with("Subject:\n  one\n\ttwo  \nX: 1\n");
    const auto message = Message::parse(bytes);
    REQUIRE(message);
    CHECK(message->value(HeaderId::subject) == "one\r\n\ttwo");
    CHECK(message->field_count() == 7);
}

TEST_CASE("white space before the colon is legal") {
    const std::string bytes = message_with("Require \t : sec-agree\n");
    const auto message = Message::parse(bytes);
    REQUIRE(message);
    CHECK(message->field(5).name == "Require");
    CHECK(message->value(HeaderId::require) == "sec-agree");
}

TEST_CASE("an unknown header may be empty") {
    const std::string bytes = message_with("X-Empty:\nSubject: \n \n");
    const auto message = Message::parse(bytes);
    REQUIRE(message);
    CHECK(message->field(5).value.empty());
    CHECK(message->has(HeaderId::subject));
}

TEST_CASE("an LF without its CR is no line end, wherever it stands, and gets 400") {
    const std::string good = message_with("Subject: one\n two\nContent-Length: 5\n", "MESSAGE sip:b@example.com SIP/2.0", "hel\nlo");
    REQUIRE(Message::parse(std::string_view(good)));  // in the body it is an octet like any other
    const std::size_t head = good.find("\r\n\r\n") + 4;
    for (std::size_t at = good.find('\r'); at < head; at = good.find('\r', at + 1)) {
        std::string bytes = good;
        bytes.erase(at, 1);
        CAPTURE(at);
        const auto message = Message::parse(std::string_view(bytes));
        REQUIRE_FALSE(message);
        CHECK(message.error().reason == "LF without CR");
        const auto answer = make_bad_request(bytes, message.error());
        REQUIRE(answer);
        CHECK(answer->starts_with("SIP/2.0 400 LF without CR\r\n"));
        for (std::size_t lf = answer->find('\n'); lf != std::string::npos; lf = answer->find('\n', lf + 1)) CHECK((*answer)[lf - 1] == '\r');
    }
    std::string all = good;
    std::erase(all, '\r');
    CHECK(reason_of(all) == "LF without CR");
    CHECK(make_bad_request(all, Message::parse(std::string_view(all)).error()).has_value());
}

TEST_CASE("line ends before the start line are skipped") {
    const std::string bytes = "\r\n\r\n" + message_with("");
    const auto message = Message::parse(bytes);
    REQUIRE(message);
    CHECK(message->bytes() == std::string_view(bytes).substr(4));
    CHECK(message->field(0).begin == message->fields_begin());
}

TEST_CASE("an unknown method is a request like any other, and method names are case-sensitive") {
    for (const std::string_view name : {"NEWMETHOD", "register"}) {
        const std::string bytes = message_with("", std::string(name) + " sip:b@example.com SIP/2.0");
        const auto message = Message::parse(bytes);
        REQUIRE(message);
        CHECK(message->method() == Method::other);
        CHECK(message->method_name() == name);
    }
}

TEST_CASE("without Content-Length the body reaches to the end of the datagram") {
    const std::string bytes = message_with("", "MESSAGE sip:b@example.com SIP/2.0", "to the end\r\n");
    const auto message = Message::parse(bytes);
    REQUIRE(message);
    CHECK(message->body() == "to the end\r\n");
}

TEST_CASE("octets after Content-Length are cut off") {
    const std::string bytes = message_with("l: 2\n", "MESSAGE sip:b@example.com SIP/2.0", "abcdef");
    const auto message = Message::parse(bytes);
    REQUIRE(message);
    CHECK(message->body() == "ab");
    CHECK(message->bytes().ends_with("\r\n\r\nab"));
}

TEST_CASE("a Via without branch is no matter of the parser") {
    std::string bytes = message_with("");
    bytes.replace(bytes.find(";branch=z9hG4bK1"), 16, "");
    CHECK(Message::parse(std::string_view(bytes)));
}

TEST_CASE("a body may hold anything, NUL included") {
    const std::string bytes = message_with("Content-Length: 3\n", "MESSAGE sip:b@example.com SIP/2.0", std::string_view("\0\r\xff", 3));
    const auto message = Message::parse(bytes);
    REQUIRE(message);
    CHECK(message->body() == std::string_view("\0\r\xff", 3));
}

TEST_CASE("an owned message survives its source and a move") {
    std::string bytes = handset_register();
    auto owned = OwnedMessage::parse(bytes);
    REQUIRE(owned);
    bytes.assign(bytes.size(), 'x');
    const OwnedMessage moved = std::move(*owned);
    CHECK(moved->method() == Method::register_);
    CHECK(moved->value(HeaderId::cseq) == "1 REGISTER");
    CHECK(moved->field_count() == 14);
}

TEST_CASE("H-1: a wiped message holds nothing any more") {
    auto owned = OwnedMessage::parse(message_with("WWW-Authenticate: Digest ck=\"0123\"\n", "SIP/2.0 401 Unauthorized"));
    REQUIRE(owned);
    const std::string_view bytes = (*owned)->bytes();
    owned->wipe();
    CHECK(bytes.find_first_not_of('\0') == std::string_view::npos);
}

TEST_CASE("at most 128 header fields, at most 65535 octets") {
    std::string lines;
    for (std::size_t i = 5; i < kMaxHeaderFields; ++i) lines += "X: 1\n";
    const std::string most = message_with(lines);
    CHECK(Message::parse(std::string_view(most)));
    CHECK(reason_of(message_with(lines + "X: 1\n")) == "too many header fields");
    const std::string head = message_with("");
    CHECK(reason_of(head + std::string(kMaxMessage - head.size(), 'b')).empty());
    CHECK(reason_of(head + std::string(kMaxMessage - head.size() + 1, 'b')) == "message too large");
}

TEST_CASE("a copy of a message has the same fields") {
    const std::string bytes = handset_register();
    const auto message = Message::parse(bytes);
    REQUIRE(message);
    const Message copy = *message;
    REQUIRE(copy.field_count() == message->field_count());
    CHECK(copy.field(13).begin == message->field(13).begin);
    CHECK(copy.value(HeaderId::require) == "sec-agree");
}
