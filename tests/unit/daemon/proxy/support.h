// Texts and shorthands for the tests of daemon/proxy.
#pragma once

#include <string>
#include <string_view>

#include <doctest/doctest.h>

#include "sip/message/message.h"
#include "sip/transport/transport.h"

namespace gmgate::daemon::test {

/// "\n" becomes CRLF, so that messages can be written as raw strings; a leading line end is dropped.
inline std::string crlf(std::string_view text) {
    std::string out;
    if (text.starts_with('\n')) text.remove_prefix(1);
    for (const char c : text) {
        if (c == '\n') out += '\r';
        out += c;
    }
    return out;
}

inline sip::OwnedMessage parse(std::string_view text) {
    auto message = sip::OwnedMessage::parse(text);
    REQUIRE_MESSAGE(message.has_value(), (message ? std::string_view() : message.error().reason));
    return std::move(*message);
}

/// The random part of P-Charging-Vector as ICID.
inline std::string without_icid(std::string text) {
    constexpr std::string_view kBegin = "icid-value=\"";
    const std::size_t at = text.find(kBegin);
    if (at == std::string::npos) return text;
    const std::size_t begin = at + kBegin.size();
    const std::size_t end = text.find('"', begin);
    CHECK(end - begin == 32);
    return text.replace(begin, end - begin, "ICID");
}

inline bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

inline std::string lower(std::string text) {
    for (char& c : text)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c | 0x20);
    return text;
}

inline sip::Flow udp_flow(std::string_view local, std::string_view remote) {
    sip::Flow flow;
    flow.local = *Endpoint::parse(local);
    flow.remote = *Endpoint::parse(remote);
    return flow;
}

}  // namespace gmgate::daemon::test
