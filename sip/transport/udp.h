// One UDP socket: datagrams in by recvmmsg, out by sendmmsg, both in batches.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <netinet/in.h>
#include <sys/socket.h>
#include <asio/any_io_executor.hpp>
#include <asio/posix/stream_descriptor.hpp>

#include "sip/transport/socket.h"
#include "sip/transport/transport.h"

namespace gmgate::sip {

/// Memory for one recvmmsg batch, shared by all sockets of a loop: handlers run before the next call and keep nothing.
/// A datagram's octets are wiped once it has been handled, for the core's 401 carries ck and ik.
class ReceiveBuffers {
public:
    static constexpr unsigned kBatch = 32;
    ReceiveBuffers();
    ReceiveBuffers(const ReceiveBuffers&) = delete;
    ReceiveBuffers& operator=(const ReceiveBuffers&) = delete;

    /// One recvmmsg of at most `limit` datagrams. Their number, or 0 with errno.
    unsigned receive(int fd, unsigned limit = kBatch);
    std::string_view bytes(unsigned index) const;
    std::optional<Endpoint> source(unsigned index) const;
    Mark mark(unsigned index) const;  ///< SO_RCVMARK, 0 when the kernel reported none
    void wipe(unsigned index);

private:
    static constexpr std::size_t kSize = 65536;  // more than any datagram: none is ever cut
    static constexpr std::size_t kControl = CMSG_SPACE(sizeof(std::uint32_t)) * 2;
    std::unique_ptr<char[]> memory_;  // pages are touched only when datagrams fill them
    std::array<mmsghdr, kBatch> headers_{};
    std::array<iovec, kBatch> vectors_{};
    std::array<sockaddr_storage, kBatch> sources_{};
    alignas(cmsghdr) std::array<std::array<char, kControl>, kBatch> controls_{};
};

/// Threads: the loop's only. shared_ptr because a wait in flight must find its socket after everyone else let go of it.
class UdpSocket : public std::enable_shared_from_this<UdpSocket> {
public:
    /// The bytes are valid during the call only.
    using DatagramHandler = std::function<void(std::string_view bytes, const Flow& flow)>;

    /// `counters` and `buffers` must live as long as the socket. Receiving begins with start(). `inherited`: bound
    /// already; `prepared`: by prepare_udp_socket(); neither: a new one is opened.
    static Result<std::shared_ptr<UdpSocket>> open(const asio::any_io_executor& executor, const Endpoint& local,
                                                   bool report_mark, std::shared_ptr<ReceiveBuffers> buffers,
                                                   std::shared_ptr<TransportCounters> counters,
                                                   FileDescriptor inherited = {}, FileDescriptor prepared = {});
    /// At most `a_turn` datagrams are handled in a turn of the loop.
    void start(DatagramHandler handler, unsigned a_turn = 4 * ReceiveBuffers::kBatch);
    /// Queues a datagram; flush() gives it to the kernel. exhausted: queue full; refused: larger than a datagram.
    Result<void> queue(const Endpoint& remote, std::string bytes);
    /// Sends what is queued, in batches; waits for room in the socket when there is none. A datagram that the kernel
    /// refuses is counted and dropped: SIP retransmits.
    void flush();
    void close();
    int native_handle() { return descriptor_.native_handle(); }
    bool has_queued() const { return !queue_.empty(); }

    UdpSocket(const asio::any_io_executor& executor, const Endpoint& local, std::shared_ptr<ReceiveBuffers> buffers,
              std::shared_ptr<TransportCounters> counters);

private:
    struct Datagram {
        Endpoint remote;
        std::string bytes;
    };
    void wait_readable();
    void receive();
    void wait_writable();
    /// Sends up to one batch from `first` on; how many are done with, sent or dropped; 0 when the socket is full.
    std::size_t send_batch(std::size_t first);

    asio::posix::stream_descriptor descriptor_;
    Endpoint local_;
    std::shared_ptr<ReceiveBuffers> buffers_;
    std::shared_ptr<TransportCounters> counters_;
    DatagramHandler handler_;
    unsigned a_turn_ = 0;
    std::vector<Datagram> queue_;
    bool waiting_for_room_ = false;
};

}  // namespace gmgate::sip
