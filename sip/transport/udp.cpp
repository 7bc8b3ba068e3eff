#include "sip/transport/udp.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/secret.h"
#include "base/spawn.h"
#include "base/turn.h"

#ifndef SO_RCVMARK
#define SO_RCVMARK 75
#endif

namespace gmgate::sip {
namespace {

constexpr std::size_t kQueueLimit = 8192;  // datagrams waiting for the kernel
constexpr std::size_t kSendBatch = 64;
constexpr std::size_t kMaxDatagram = 65507;  // IPv4: 65535 - 20 - 8

}  // namespace

ReceiveBuffers::ReceiveBuffers() : memory_(std::make_unique_for_overwrite<char[]>(kSize * kBatch)) {
    for (unsigned i = 0; i < kBatch; ++i) {
        vectors_[i] = {.iov_base = memory_.get() + i * kSize, .iov_len = kSize};
        msghdr& header = headers_[i].msg_hdr;
        header.msg_name = &sources_[i];
        header.msg_iov = &vectors_[i];
        header.msg_iovlen = 1;
        header.msg_control = controls_[i].data();
    }
}

unsigned ReceiveBuffers::receive(int fd, unsigned limit) {
    for (auto& header : headers_) {  // in-out fields
        header.msg_hdr.msg_namelen = sizeof(sockaddr_storage);
        header.msg_hdr.msg_controllen = kControl;
    }
    int count = 0;
    do count = ::recvmmsg(fd, headers_.data(), std::min(limit, kBatch), MSG_DONTWAIT, nullptr);
    while (count < 0 && errno == EINTR);
    return count > 0 ? static_cast<unsigned>(count) : 0;
}

std::string_view ReceiveBuffers::bytes(unsigned index) const {
    return {memory_.get() + index * kSize, headers_[index].msg_len};
}

std::optional<Endpoint> ReceiveBuffers::source(unsigned index) const {
    return Endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&sources_[index]));
}

Mark ReceiveBuffers::mark(unsigned index) const {
    msghdr header = headers_[index].msg_hdr;
    for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
        if (c->cmsg_level != SOL_SOCKET || (c->cmsg_type != SO_RCVMARK && c->cmsg_type != SO_MARK)) continue;
        std::uint32_t mark = 0;
        std::memcpy(&mark, CMSG_DATA(c), sizeof mark);
        return Mark(mark);
    }
    return Mark();
}

void ReceiveBuffers::wipe(unsigned index) { gmgate::wipe(memory_.get() + index * kSize, headers_[index].msg_len); }

UdpSocket::UdpSocket(const asio::any_io_executor& executor, const Endpoint& local,
                     std::shared_ptr<ReceiveBuffers> buffers, std::shared_ptr<TransportCounters> counters)
    : descriptor_(executor), local_(local), buffers_(std::move(buffers)), counters_(std::move(counters)) {}

Result<std::shared_ptr<UdpSocket>> UdpSocket::open(const asio::any_io_executor& executor, const Endpoint& local,
                                                   bool report_mark, std::shared_ptr<ReceiveBuffers> buffers,
                                                   std::shared_ptr<TransportCounters> counters,
                                                   FileDescriptor inherited, FileDescriptor prepared) {
    Result<FileDescriptor> fd = std::move(inherited);
    if (!fd->is_open())
        fd = prepared.is_open() ? open_udp_socket(local, std::move(prepared)) : open_udp_socket(local, report_mark);
    if (!fd) return std::unexpected(std::move(fd.error()));
    auto socket =
        std::make_shared<UdpSocket>(executor, local_endpoint_of(fd->get()), std::move(buffers), std::move(counters));
    asio::error_code error;
    socket->descriptor_.assign(fd->get(), error);
    if (error) return system_failure(Reaction::refused, "cannot watch UDP " + local.to_string(), error.value());
    fd->release();
    return socket;
}

void UdpSocket::start(DatagramHandler handler, unsigned a_turn) {
    handler_ = std::move(handler);
    a_turn_ = a_turn;
    wait_readable();
}

void UdpSocket::wait_readable() {
    descriptor_.async_wait(asio::posix::descriptor_base::wait_read,
                           [self = shared_from_this()](const asio::error_code& error) {
                               if (error || !self->descriptor_.is_open()) return;
                               {
                                   const Turn turn;
                                   self->receive();
                               }
                               if (self->descriptor_.is_open()) self->wait_readable();
                           });
}

void UdpSocket::receive() {
    for (unsigned left = a_turn_; left != 0 && descriptor_.is_open();) {  // then the loop serves the others
        ++counters_->receive_calls;
        const unsigned wanted = std::min(left, ReceiveBuffers::kBatch);
        const unsigned count = buffers_->receive(descriptor_.native_handle(), wanted);
        left -= count;
        counters_->datagrams_in += count;
        for (unsigned i = 0; i < count; ++i) {
            const auto source = buffers_->source(i);
            if (source && descriptor_.is_open()) {
                const Flow flow{.transport = Transport::udp,
                                .local = local_,
                                .remote = *source,
                                .connection = {},
                                .mark = buffers_->mark(i)};
                guarded("datagram", [&] { handler_(buffers_->bytes(i), flow); });
            }
            buffers_->wipe(i);
        }
        if (count < wanted) return;
    }
}

Result<void> UdpSocket::queue(const Endpoint& remote, std::string bytes) {
    if (remote.address.family() != local_.address.family())
        return failure(Reaction::internal, "UDP " + local_.to_string() + " cannot send to " + remote.to_string() +
                                               ": address families differ");
    if (bytes.size() > kMaxDatagram)
        return failure(Reaction::refused,
                       "a message of " + std::to_string(bytes.size()) + " octets does not fit into a datagram");
    if (queue_.size() >= kQueueLimit) {
        ++counters_->datagrams_not_sent;
        return failure(Reaction::exhausted, "the send queue of UDP " + local_.to_string() + " is full");
    }
    queue_.push_back({remote, std::move(bytes)});
    return {};
}

void UdpSocket::flush() {
    if (waiting_for_room_ || !descriptor_.is_open()) return;
    std::size_t done = 0;
    while (done < queue_.size()) {
        const std::size_t step = send_batch(done);
        if (step == 0) break;
        done += step;
    }
    queue_.erase(queue_.begin(), queue_.begin() + static_cast<std::ptrdiff_t>(done));
    if (!queue_.empty()) wait_writable();
}

std::size_t UdpSocket::send_batch(std::size_t first) {
    std::array<mmsghdr, kSendBatch> headers;  // of these three only as much as is sent is set and read
    std::array<iovec, kSendBatch> vectors;
    std::array<sockaddr_storage, kSendBatch> addresses;
    const std::size_t count = std::min(kSendBatch, queue_.size() - first);
    for (std::size_t i = 0; i < count; ++i) {
        Datagram& datagram = queue_[first + i];
        vectors[i] = {.iov_base = datagram.bytes.data(), .iov_len = datagram.bytes.size()};
        headers[i] = {};
        msghdr& header = headers[i].msg_hdr;
        header.msg_namelen = datagram.remote.to_sockaddr(addresses[i]);
        header.msg_name = &addresses[i];
        header.msg_iov = &vectors[i];
        header.msg_iovlen = 1;
    }
    ++counters_->send_calls;
    const int sent = ::sendmmsg(descriptor_.native_handle(), headers.data(), static_cast<unsigned>(count),
                                MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent > 0) {
        counters_->datagrams_out += static_cast<std::uint64_t>(sent);
        return static_cast<std::size_t>(sent);
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) return 0;
    if (errno != EINTR) {  // the first of the batch was refused (no route, too big for the path, ENOBUFS): drop it, go
                           // on with the next
        ++counters_->datagrams_not_sent;
        return 1;
    }
    return send_batch(first);
}

void UdpSocket::wait_writable() {
    waiting_for_room_ = true;
    descriptor_.async_wait(asio::posix::descriptor_base::wait_write,
                           [self = shared_from_this()](const asio::error_code& error) {
                               self->waiting_for_room_ = false;
                               if (!error) self->flush();
                           });
}

void UdpSocket::close() {
    flush();
    counters_->datagrams_not_sent += queue_.size();
    queue_.clear();
    asio::error_code ignored;
    descriptor_.close(ignored);
}

}  // namespace gmgate::sip
