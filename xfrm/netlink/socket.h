// The socket under the netlink queue, as an interface: a test can answer message by message without a kernel.
#pragma once

#include <chrono>
#include <memory>
#include <span>

#include <asio/any_io_executor.hpp>

#include "base/error.h"
#include "base/task.h"

namespace gmgate::xfrm {

/// Datagrams to and from the kernel. One send and one receive at a time, one loop. Never blocks.
class NetlinkSocket {
public:
    virtual ~NetlinkSocket() = default;

    /// Opens the socket; one that is open already is closed first, and with it every answer that was still on its way.
    virtual Result<void> open() = 0;
    virtual void close() = 0;
    virtual bool is_open() const = 0;

    /// Sends all parts as one datagram. Reaction::retry: the kernel had no memory and has seen nothing of it.
    /// Reaction::broken: unknown how much was seen. The parts must live until the call returns.
    virtual Task<Result<void>> send(std::span<const std::span<const std::uint8_t>> parts) = 0;
    /// One datagram from the kernel. Reaction::broken with ETIMEDOUT (nothing came within `patience`), ENOBUFS (answers
    /// were dropped), or another errno. The buffer must live until the call returns.
    virtual Task<Result<std::size_t>> receive(std::span<std::uint8_t> buffer, std::chrono::milliseconds patience) = 0;

    /// sendmsg and recvmsg calls so far.
    virtual std::uint64_t system_calls() const = 0;
};

/// NETLINK_XFRM in the network namespace of the moment of open(): non-blocking, close-on-exec, NETLINK_EXT_ACK for
/// reasons, NETLINK_CAP_ACK so that an error does not carry our keys back. Buffers are forced up where the capability
/// allows it.
std::unique_ptr<NetlinkSocket> make_xfrm_socket(asio::any_io_executor executor);

}  // namespace gmgate::xfrm
