// Messages and short cuts that the parser's tests share.
#pragma once

#include <doctest/doctest.h>

#include <string>
#include <string_view>

#include "sip/message/message.h"

namespace gmgate::sip::test {

/// `text` with every LF as CRLF.
inline std::string crlf(std::string_view text) {
    std::string out;
    for (const char c : text) {
        if (c == '\n') out += '\r';
        out += c;
    }
    return out;
}

/// A request or response with the five mandatory fields; `extra` are field lines, each with its LF.
inline std::string message_with(std::string_view extra, std::string_view start = "OPTIONS sip:b@example.com SIP/2.0",
                                std::string_view body = {}) {
    std::string text(start);
    const std::string_view method = start.starts_with("SIP/") ? "OPTIONS" : start.substr(0, start.find(' '));
    text.append(
        "\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1\nFrom: <sip:a@example.com>;tag=1\nTo: <sip:b@example.com>\n");
    text.append("Call-ID: x@192.0.2.1\nCSeq: 7 ").append(method).append("\n").append(extra).append("\n");
    return crlf(text).append(body);
}

/// The reason of a message that must not parse; "" when it parses.
inline std::string reason_of(std::string_view bytes) {
    const auto message = Message::parse(bytes);
    return message ? std::string() : std::string(message.error().reason);
}

/// A REGISTER as a handset sends it.
std::string handset_register();

}  // namespace gmgate::sip::test
