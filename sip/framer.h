// Cuts a byte stream (TCP, TLS) into SIP messages by Content-Length (RFC 3261 §18.3), and sees keep-alives (RFC 5626 §3.5.1).
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"
#include "sip/limits.h"

namespace gmgate::sip {

/// What the framer found at the front of its buffer.
enum class Frame {
    need_more,  ///< no whole message yet
    message,    ///< `bytes` is one whole message
    ping,       ///< double CRLF: answer with a single CRLF
    error,      ///< the stream is out of step or over a limit: answer if possible, then close; `bytes` is what could be the head
};

struct FrameResult {
    Frame frame = Frame::need_more;
    std::string_view bytes;   ///< valid until the next call of feed() or next()
    std::string_view reason;  ///< for error
};

/// Holds at most one incomplete message (limits.h). A stream message without Content-Length is an error.
class Framer {
public:
    /// Appends received bytes. False (and nothing appended) when the buffer would exceed the limit.
    bool feed(std::string_view bytes);
    FrameResult next();
    /// True between two messages: nothing half read is held (a connection may then be handed over).
    bool is_empty() const { return buffer_.size() == consumed_; }

private:
    std::string buffer_;
    std::size_t consumed_ = 0;
};

}  // namespace gmgate::sip
