#include "xfrm/netlink/socket.h"

#include <array>
#include <cerrno>
#include <optional>

#include <libmnl/libmnl.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>

namespace gmgate::xfrm {
namespace {

constexpr int kBufferSize = 4 * 1024 * 1024;
constexpr std::chrono::seconds kSendPatience{5};

class XfrmSocket final : public NetlinkSocket {
public:
    explicit XfrmSocket(asio::any_io_executor executor) : executor_(std::move(executor)) {}
    ~XfrmSocket() override { close(); }

    Result<void> open() override;
    void close() override;
    bool is_open() const override { return socket_ != nullptr; }
    Task<Result<void>> send(std::span<const std::span<const std::uint8_t>> parts) override;
    Task<Result<std::size_t>> receive(std::span<std::uint8_t> buffer, std::chrono::milliseconds patience) override;
    std::uint64_t system_calls() const override { return system_calls_; }

private:
    using Descriptor = asio::posix::stream_descriptor;

    Task<bool> wait(Descriptor::wait_type what, std::chrono::milliseconds patience);
    void set_options();

    asio::any_io_executor executor_;
    mnl_socket* socket_ = nullptr;
    // Shared because the time-out's handler may already be queued when the socket is closed: it holds a weak_ptr.
    std::shared_ptr<Descriptor> descriptor_;
    std::uint64_t system_calls_ = 0;
};

Result<void> XfrmSocket::open() {
    close();
    socket_ = mnl_socket_open2(NETLINK_XFRM, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (!socket_) {
        const int code = errno;
        if (code == EPROTONOSUPPORT)
            return system_failure(Reaction::broken, "the kernel has no XFRM netlink: load xfrm_user", code);
        return system_failure(Reaction::broken, "cannot open an XFRM netlink socket", code);
    }
    set_options();
    if (mnl_socket_bind(socket_, 0, MNL_SOCKET_AUTOPID) < 0) {
        const int code = errno;
        close();
        return system_failure(Reaction::broken, "cannot bind the XFRM netlink socket", code);
    }
    asio::error_code error;
    descriptor_ = std::make_shared<Descriptor>(executor_);
    descriptor_->assign(mnl_socket_get_fd(socket_), error);
    if (error) {
        close();
        return system_failure(Reaction::broken, "cannot watch the XFRM netlink socket", error.value());
    }
    return {};
}

void XfrmSocket::set_options() {
    int on = 1;
    // Without these two the gateway still works: errors come without a text, or with the request behind them (wiped
    // with the buffer).
    static_cast<void>(mnl_socket_setsockopt(socket_, NETLINK_EXT_ACK, &on, sizeof on));
    static_cast<void>(mnl_socket_setsockopt(socket_, NETLINK_CAP_ACK, &on, sizeof on));
    const int fd = mnl_socket_get_fd(socket_);
    for (const auto& [forced, plain] : {std::pair{SO_SNDBUFFORCE, SO_SNDBUF}, std::pair{SO_RCVBUFFORCE, SO_RCVBUF}})
        if (setsockopt(fd, SOL_SOCKET, forced, &kBufferSize, sizeof kBufferSize) < 0)
            static_cast<void>(setsockopt(fd, SOL_SOCKET, plain, &kBufferSize, sizeof kBufferSize));
}

void XfrmSocket::close() {
    if (descriptor_) {
        if (descriptor_->is_open()) {
            asio::error_code ignored;
            descriptor_->cancel(ignored);
            descriptor_->release();  // the descriptor belongs to libmnl's socket
        }
        descriptor_.reset();
    }
    if (socket_) mnl_socket_close(socket_);
    socket_ = nullptr;
}

// True when ready, false when `patience` ran out or the socket was closed meanwhile.
Task<bool> XfrmSocket::wait(Descriptor::wait_type what, std::chrono::milliseconds patience) {
    const auto descriptor = descriptor_;
    asio::steady_timer timer(executor_, patience);
    timer.async_wait([weak = std::weak_ptr(descriptor)](asio::error_code error) {
        if (const auto strong = weak.lock(); strong && !error) {
            asio::error_code ignored;
            strong->cancel(ignored);
        }
    });
    asio::error_code error;
    co_await descriptor->async_wait(what, asio::redirect_error(asio::use_awaitable, error));
    co_return !error && descriptor == descriptor_;
}

Task<Result<void>> XfrmSocket::send(std::span<const std::span<const std::uint8_t>> parts) {
    std::vector<iovec> pieces;
    pieces.reserve(parts.size());
    for (const auto part : parts) pieces.push_back({const_cast<std::uint8_t*>(part.data()), part.size()});
    sockaddr_nl kernel{};
    kernel.nl_family = AF_NETLINK;
    msghdr message{};
    message.msg_name = &kernel;
    message.msg_namelen = sizeof kernel;
    message.msg_iov = pieces.data();
    message.msg_iovlen = pieces.size();

    for (;;) {
        if (!socket_) co_return system_failure(Reaction::broken, "the XFRM netlink socket is closed", EBADF);
        ++system_calls_;
        if (sendmsg(mnl_socket_get_fd(socket_), &message, MSG_NOSIGNAL) >= 0) co_return Result<void>{};
        const int code = errno;
        if (code == EINTR) continue;
        if (code == ENOBUFS || code == ENOMEM)
            co_return system_failure(Reaction::retry, "the kernel had no memory for a netlink request", code);
        if (code != EAGAIN) co_return system_failure(Reaction::broken, "cannot send to the XFRM netlink socket", code);
        const bool is_ready = co_await wait(Descriptor::wait_write, kSendPatience);
        if (!is_ready) co_return system_failure(Reaction::retry, "the XFRM netlink socket stayed full", EAGAIN);
    }
}

Task<Result<std::size_t>> XfrmSocket::receive(std::span<std::uint8_t> buffer, std::chrono::milliseconds patience) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    for (;;) {
        if (!socket_) co_return system_failure(Reaction::broken, "the XFRM netlink socket is closed", EBADF);
        sockaddr_nl sender{};
        iovec piece{buffer.data(), buffer.size()};
        msghdr message{};
        message.msg_name = &sender;
        message.msg_namelen = sizeof sender;
        message.msg_iov = &piece;
        message.msg_iovlen = 1;
        ++system_calls_;
        const ssize_t size = recvmsg(mnl_socket_get_fd(socket_), &message, MSG_DONTWAIT);
        const int code = errno;
        if (size >= 0) {
            // nl_pid stands for port id and not process id; 0 is the kernel, whom alone we listen to.
            if (message.msg_namelen != sizeof sender || sender.nl_pid != 0) continue;
            if (message.msg_flags & MSG_TRUNC)
                co_return system_failure(Reaction::broken, "an answer of the kernel is larger than the receive buffer",
                                         EMSGSIZE);
            co_return static_cast<std::size_t>(size);
        }
        if (code == EINTR) continue;
        if (code != EAGAIN) co_return system_failure(Reaction::broken, "answers of the kernel were lost", code);
        const auto left =
            std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
        if (left.count() <= 0)
            co_return system_failure(Reaction::broken, "the kernel did not answer in time", ETIMEDOUT);
        // The answer to a request is there before sendmsg returns, so this wait is rare.
        static_cast<void>(co_await wait(Descriptor::wait_read, left));
    }
}

}  // namespace

std::unique_ptr<NetlinkSocket> make_xfrm_socket(asio::any_io_executor executor) {
    return std::make_unique<XfrmSocket>(std::move(executor));
}

}  // namespace gmgate::xfrm
