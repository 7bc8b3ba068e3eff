#include "xfrm/engine/socket.h"

#include <array>
#include <cerrno>
#include <cstring>

#include <poll.h>
#include <sys/socket.h>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/post.hpp>

#include "base/secret.h"
#include "xfrm/netlink/message_buffer.h"

namespace gmgate::xfrm {
namespace {

constexpr std::size_t kAtOnce = 16;  // frames per system call; then others have their turn

}  // namespace

struct FrameSocket::Impl : std::enable_shared_from_this<FrameSocket::Impl> {
    Impl(asio::any_io_executor e, int fd) : executor(std::move(e)), descriptor(executor, fd) {}

    void wait_to_read();
    void read();
    void flush();
    void flush_later();
    bool send_some(int flags);
    void fail(std::string why);
    void close();

    asio::any_io_executor executor;
    asio::posix::stream_descriptor descriptor;
    WipedBytes room{kAtOnce * GM_FRAME_LIMIT, std::pmr::get_default_resource()};
    FrameHandler on_frame;
    ClosedHandler on_closed;
    std::deque<Frame> queue;
    std::size_t queued = 0;
    std::uint64_t system_calls = 0;
    bool is_closed = false, is_waiting = false, is_flush_posted = false, is_silent = false;
};

void FrameSocket::Impl::wait_to_read() {
    descriptor.async_wait(asio::posix::stream_descriptor::wait_read,
                          [weak = weak_from_this()](const asio::error_code& error) {
                              const auto self = weak.lock();
                              if (!self || error || self->is_closed) return;
                              self->read();
                              if (!self->is_closed) self->wait_to_read();
                          });
}

void FrameSocket::Impl::read() {
    std::array<mmsghdr, kAtOnce> messages{};
    std::array<iovec, kAtOnce> pieces{};
    for (std::size_t i = 0; i < kAtOnce; ++i) {
        pieces[i] = {room.all().data() + i * GM_FRAME_LIMIT, GM_FRAME_LIMIT};
        messages[i].msg_hdr.msg_iov = &pieces[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    ++system_calls;
    const int got = recvmmsg(descriptor.native_handle(), messages.data(), kAtOnce, MSG_DONTWAIT, nullptr);
    if (got < 0) {
        if (errno == EAGAIN || errno == EINTR) return;
        return fail(std::string("reading failed: ") + std::strerror(errno));
    }
    const auto keep = shared_from_this();  // a handler may end this socket
    for (std::size_t i = 0; i < static_cast<std::size_t>(got); ++i) {
        const std::span frame(room.all().data() + i * GM_FRAME_LIMIT, messages[i].msg_len);
        const bool is_end = frame.empty();  // SEQPACKET: nobody sends an empty frame, so the other end is closed
        if (is_end && !is_closed) return fail("the other end closed it");
        if (!is_closed) on_frame((messages[i].msg_hdr.msg_flags & MSG_TRUNC) != 0 ? frame.first(0) : frame);
        wipe(frame);
    }
}

// One sendmmsg; false when the socket takes no more for now, or is no more.
bool FrameSocket::Impl::send_some(int flags) {
    std::array<mmsghdr, kAtOnce> messages{};
    std::array<iovec, kAtOnce> pieces{};
    const auto count = std::min(queue.size(), kAtOnce);
    for (std::size_t i = 0; i < count; ++i) {
        pieces[i] = {queue[i].data(), queue[i].size()};
        messages[i].msg_hdr.msg_iov = &pieces[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    ++system_calls;
    const int sent =
        sendmmsg(descriptor.native_handle(), messages.data(), static_cast<unsigned>(count), flags | MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno == EINTR) return true;
        if (errno != EAGAIN && errno != ENOBUFS) fail(std::string("writing failed: ") + std::strerror(errno));
        return false;
    }
    for (int i = 0; i < sent; ++i) {
        queued -= queue.front().size();
        wipe(queue.front());
        queue.pop_front();
    }
    return true;
}

void FrameSocket::Impl::flush() {
    while (!is_closed && !queue.empty() && !is_waiting) {
        if (send_some(MSG_DONTWAIT)) continue;
        if (is_closed) return;
        is_waiting = true;
        descriptor.async_wait(asio::posix::stream_descriptor::wait_write,
                              [weak = weak_from_this()](const asio::error_code& error) {
                                  const auto self = weak.lock();
                                  if (!self || error || self->is_closed) return;
                                  self->is_waiting = false;
                                  self->flush();
                              });
    }
}

void FrameSocket::Impl::flush_later() {
    if (std::exchange(is_flush_posted, true)) return;
    asio::post(executor, [weak = weak_from_this()] {
        const auto self = weak.lock();
        if (!self) return;
        self->is_flush_posted = false;
        self->flush();
    });
}

void FrameSocket::Impl::fail(std::string why) {
    if (is_closed) return;
    close();
    asio::post(executor, [self = shared_from_this(), text = std::move(why)]() mutable {
        if (self->on_closed && !self->is_silent) self->on_closed(std::move(text));
    });
}

void FrameSocket::Impl::close() {
    if (std::exchange(is_closed, true)) return;
    for (auto& frame : queue) wipe(frame);
    queue.clear();
    queued = 0;
    asio::error_code ignored;
    descriptor.close(ignored);
}

FrameSocket::FrameSocket(asio::any_io_executor executor, int descriptor)
    : impl_(std::make_shared<Impl>(std::move(executor), descriptor)) {}

FrameSocket::~FrameSocket() { close(); }

void FrameSocket::start(FrameHandler on_frame, ClosedHandler on_closed) {
    impl_->on_frame = std::move(on_frame);
    impl_->on_closed = std::move(on_closed);
    impl_->wait_to_read();
}

void FrameSocket::send(Frame frame) {
    if (impl_->is_closed) return wipe(frame);
    impl_->queued += frame.size();
    impl_->queue.push_back(std::move(frame));
    impl_->flush_later();
}

std::size_t FrameSocket::queued() const { return impl_->queued; }

void FrameSocket::drain_below(std::size_t octets) {
    auto& impl = *impl_;
    while (!impl.is_closed && impl.queued >= octets && !impl.queue.empty()) {
        if (impl.send_some(MSG_DONTWAIT) || impl.is_closed) continue;
        pollfd writable{.fd = impl.descriptor.native_handle(), .events = POLLOUT, .revents = 0};
        if (::poll(&writable, 1, -1) > 0 && (writable.revents & (POLLHUP | POLLERR)) != 0)
            return impl.fail("the other end closed it");
    }
}

bool FrameSocket::is_abandoned() const {
    if (impl_->is_closed) return true;
    pollfd other{.fd = impl_->descriptor.native_handle(), .events = POLLRDHUP, .revents = 0};
    return ::poll(&other, 1, 0) > 0 && (other.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

void FrameSocket::close() {
    impl_->is_silent = true;  // the handlers stay: one of them may be running
    impl_->close();
}

std::uint64_t FrameSocket::system_calls() const { return impl_->system_calls; }

}  // namespace gmgate::xfrm
