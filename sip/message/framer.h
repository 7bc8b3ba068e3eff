// Cuts a byte stream (TCP, TLS) into SIP messages by Content-Length (RFC 3261 §18.3), and sees keep-alives (RFC 5626
// §3.5.1).
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"
#include "sip/message/limits.h"

namespace gmgate::sip {

/// What the framer found at the front of its buffer.
enum class Frame {
    need_more,  ///< no whole message yet
    message,    ///< `bytes` is one whole message
    ping,       ///< double CRLF: answer with a single CRLF
    error,  ///< the stream is out of step or over a limit: answer if possible, then close; `bytes` is what could be the
            ///< head
};

struct FrameResult {
    Frame frame = Frame::need_more;
    std::string_view bytes;   ///< valid until the next call of feed() or next()
    std::string_view reason;  ///< for error
};

/// Holds at most one incomplete message (limits.h) and one read of as much again. A stream message without
/// Content-Length is an error. How the stream was cut into feeds never changes what comes out. Every octet is looked at
/// once, however small the feeds are. What was handed out is wiped at the next call, and everything in the destructor:
/// a 401 from the core carries ck and ik.
class Framer {
public:
    Framer() = default;
    ~Framer();
    Framer(Framer&&) = delete;
    Framer& operator=(Framer&&) = delete;
    /// Appends received bytes. False (and nothing appended) when more than twice kMaxMessage would be held, or after an
    /// error.
    bool feed(std::string_view bytes);
    /// The next thing at the front of the buffer; call it until it says need_more. An error is final: it is returned
    /// again and again.
    FrameResult next();
    /// Holds for messages whose header section is not whole yet.
    void set_limit(const MessageLimit& limit) { limit_ = limit; }
    /// True between two messages: nothing half read is held (a connection may then be handed over).
    bool is_empty() const { return buffer_.size() == consumed_; }

private:
    FrameResult fail(std::size_t length, std::string_view reason);
    FrameResult keep_alive();
    FrameResult find_head_end();
    FrameResult measure(std::size_t head_length);
    void forget();
    void make_room(std::size_t size);
    std::string_view rest() const { return std::string_view(buffer_).substr(consumed_); }

    std::string buffer_;
    std::size_t consumed_ = 0;  ///< handed out
    std::size_t wiped_ = 0;     ///< of that, already overwritten
    // All from `consumed_` on:
    std::size_t scanned_ = 0;      ///< searched for line ends up to here
    std::size_t line_ = 0;         ///< where the line begins that is being searched
    std::size_t total_ = 0;        ///< length of the message, 0 until its header section is whole
    std::size_t keep_alives_ = 0;  ///< line ends skipped since the buffer was last empty
    bool half_ping_ = false;       ///< one CRLF was seen between messages
    FrameResult failure_;
    MessageLimit limit_;
};

/// Whether a reader of a stream takes these bytes for one whole message and nothing more: one Content-Length, which is
/// that of the body.
bool is_one_frame(std::string_view bytes);

}  // namespace gmgate::sip
