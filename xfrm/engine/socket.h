// Frames over an AF_UNIX SEQPACKET socket: what waits goes out together, what arrived comes in together, and every
// buffer is wiped.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include <asio/any_io_executor.hpp>

#include "xfrm/engine/frames.h"

namespace gmgate::xfrm {

/// One end of the pair between gmgated and its engine. One loop. Descriptors that the other end sends along are dropped
/// by the kernel.
class FrameSocket {
public:
    /// The bytes are the handler's to change; they are wiped when it returns.
    using FrameHandler = std::function<void(std::span<std::uint8_t> frame)>;
    using ClosedHandler = std::function<void(std::string why)>;

    /// Owns `descriptor` from now on.
    FrameSocket(asio::any_io_executor executor, int descriptor);
    ~FrameSocket();
    FrameSocket(const FrameSocket&) = delete;
    FrameSocket& operator=(const FrameSocket&) = delete;

    /// Frames are handed on as they come. `on_closed` is called once, on the loop, when the other end is gone or the
    /// socket fails; never after close().
    void start(FrameHandler on_frame, ClosedHandler on_closed);
    /// Queues a frame; it leaves at the end of the loop's turn, together with others. Wiped once it is sent, or cannot
    /// be.
    void send(Frame frame);
    /// Octets that the socket has not taken yet.
    std::size_t queued() const;
    /// Gives the queue to the socket and waits, without the loop, until less than `octets` are left or the other end is
    /// gone.
    void drain_below(std::size_t octets);
    /// True when the other end has closed, whatever is still to be read.
    bool is_abandoned() const;
    void close();
    /// sendmmsg and recvmmsg calls so far.
    std::uint64_t system_calls() const;

private:
    struct Impl;
    std::shared_ptr<Impl> impl_;  // shared with handlers that wait on the loop
};

}  // namespace gmgate::xfrm
