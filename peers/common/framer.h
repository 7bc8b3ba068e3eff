// Cuts a byte stream into SIP messages (RFC 3261 §18.3): headers up to the blank line, then Content-Length octets.
#pragma once

#include "error.h"

#include <optional>
#include <string>
#include <string_view>

namespace gmgate::peers {

class StreamFramer {
public:
    void feed(std::string_view octets) { buffer_ += octets; }
    /// The next complete message, nothing when more octets are needed, an error when the stream cannot be followed any
    /// more.
    [[nodiscard]] Result<std::optional<std::string>> next();
    /// CRLF keep-alives seen since the last call (RFC 5626 §3.5.1: double CRLF asks for a single one).
    [[nodiscard]] int take_pings();

private:
    std::string buffer_;
    int pings_ = 0;
};

}  // namespace gmgate::peers
