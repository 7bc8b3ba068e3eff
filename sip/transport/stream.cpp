#include "sip/transport/stream.h"

#include <array>
#include <cerrno>

#include <sys/socket.h>
#include <unistd.h>
#include <asio/redirect_error.hpp>
#include <asio/use_awaitable.hpp>

#include "base/secret.h"

namespace gmgate::sip {
namespace {

constexpr std::size_t kScratch = 65536;
constexpr int kAcceptsPerTurn = 64;
constexpr std::chrono::milliseconds kAcceptPause{100};

/// One per thread, not per connection: nothing in it survives the call that filled it.
std::array<char, kScratch>& scratch() {
    thread_local std::array<char, kScratch> buffer;
    return buffer;
}

std::unexpected<Error> closed() { return failure(Reaction::broken, "the connection was closed"); }

/// Reads and throws away what has arrived: closing a socket with unread bytes sends RST, which may overtake our last
/// answer.
void discard_input(int fd) {
    auto& buffer = scratch();
    for (int i = 0; i < 4; ++i)
        if (::recv(fd, buffer.data(), buffer.size(), MSG_DONTWAIT) <= 0) break;
}

/// Ends a connection attempt when the time is up, unless it has ended itself. Shared with the timer's handler, which
/// may run late.
struct Deadline {
    explicit Deadline(asio::posix::stream_descriptor* d) : descriptor(d) {}
    asio::posix::stream_descriptor* descriptor;  // null once the wait is over
    bool expired = false;
};

}  // namespace

Result<std::unique_ptr<TcpStream>> TcpStream::make(const asio::any_io_executor& executor, FileDescriptor socket) {
    auto stream = std::make_unique<TcpStream>(executor);
    asio::error_code error;
    stream->descriptor_.assign(socket.get(), error);
    if (error) return system_failure(Reaction::broken, "cannot watch a TCP connection", error.value());
    stream->local_ = local_endpoint_of(socket.release());
    return stream;
}

Task<Result<std::unique_ptr<TcpStream>>> TcpStream::connect(asio::any_io_executor executor, Endpoint local,
                                                            Endpoint remote, std::chrono::milliseconds timeout,
                                                            std::chrono::milliseconds user_timeout) {
    auto socket = open_connecting_socket(local, remote);
    if (!socket) co_return std::unexpected(std::move(socket.error()));
    tune_connection(socket->get(), user_timeout);
    auto stream = make(executor, std::move(*socket));
    if (!stream) co_return stream;

    auto& descriptor = (*stream)->descriptor_;
    auto deadline = std::make_shared<Deadline>(&descriptor);
    asio::steady_timer timer(executor, timeout);
    timer.async_wait([deadline](const asio::error_code& error) {
        if (error || deadline->descriptor == nullptr) return;
        deadline->expired = true;
        asio::error_code ignored;
        deadline->descriptor->cancel(ignored);
    });
    asio::error_code error;
    co_await descriptor.async_wait(asio::posix::descriptor_base::wait_write,
                                   asio::redirect_error(asio::use_awaitable, error));
    deadline->descriptor = nullptr;
    if (deadline->expired)
        co_return system_failure(Reaction::broken,
                                 "cannot connect TCP " + local.to_string() + " to " + remote.to_string(), ETIMEDOUT);
    if (error) co_return closed();
    if (auto result = connect_result(descriptor.native_handle(), local, remote); !result)
        co_return std::unexpected(std::move(result.error()));
    (*stream)->local_ = local_endpoint_of(descriptor.native_handle());
    co_return stream;
}

Task<Result<std::size_t>> TcpStream::read(std::string& out) {
    while (descriptor_.is_open()) {
        asio::error_code error;
        co_await descriptor_.async_wait(asio::posix::descriptor_base::wait_read,
                                        asio::redirect_error(asio::use_awaitable, error));
        if (error || !descriptor_.is_open()) break;
        auto& buffer = scratch();
        const bool was_set = mark_.is_set();
        mark_.set();
        const ssize_t count = ::recv(descriptor_.native_handle(), buffer.data(), buffer.size(), MSG_DONTWAIT);
        if (count >= 0) {
            const auto size = static_cast<std::size_t>(count);
            out.append(buffer.data(), size);
            wipe(buffer.data(), size);
            co_return size;
        }
        if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
            co_return system_failure(Reaction::broken, "the connection failed", errno);
        if (!was_set) mark_.clear();  // nothing was taken
    }
    co_return closed();
}

std::size_t TcpStream::write_now(std::string_view bytes) {
    std::size_t done = 0;
    while (done < bytes.size() && descriptor_.is_open()) {
        const ssize_t count =
            ::send(descriptor_.native_handle(), bytes.data() + done, bytes.size() - done, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (count > 0) done += static_cast<std::size_t>(count);
        else if (count == 0 || errno != EINTR) break;  // full, or broken: write() finds out which
    }
    return done;
}

Task<Result<void>> TcpStream::write(std::string_view bytes) {
    while (descriptor_.is_open()) {
        const ssize_t count =
            ::send(descriptor_.native_handle(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (count >= 0) {
            bytes.remove_prefix(static_cast<std::size_t>(count));
            if (bytes.empty()) co_return Result<void>{};
            continue;
        }
        if (errno == EINTR) continue;
        if (errno != EAGAIN && errno != EWOULDBLOCK)
            co_return system_failure(Reaction::broken, "the connection failed", errno);
        asio::error_code error;
        co_await descriptor_.async_wait(asio::posix::descriptor_base::wait_write,
                                        asio::redirect_error(asio::use_awaitable, error));
        if (error) break;
    }
    co_return closed();
}

bool TcpStream::half_close() { return descriptor_.is_open() && ::shutdown(descriptor_.native_handle(), SHUT_WR) == 0; }

void TcpStream::close(bool reset) {
    if (!descriptor_.is_open()) return;
    // The service manager may hold the socket, too: then the end must be told before, for our close() tells nobody.
    if (reset || may_reset(descriptor_.native_handle())) {
        close_by_reset(descriptor_.native_handle());
        disconnect(descriptor_.native_handle());
    } else {
        close_gently(descriptor_.native_handle());
        discard_input(descriptor_.native_handle());
        ::shutdown(descriptor_.native_handle(), SHUT_RDWR);
    }
    asio::error_code ignored;
    descriptor_.close(ignored);
}

Result<std::shared_ptr<TcpListener>> TcpListener::open(const asio::any_io_executor& executor, const Endpoint& local,
                                                       FileDescriptor inherited) {
    Result<FileDescriptor> socket = std::move(inherited);
    if (!socket->is_open()) socket = open_listening_socket(local);
    if (!socket) return std::unexpected(std::move(socket.error()));
    auto listener = std::make_shared<TcpListener>(executor);
    asio::error_code error;
    listener->descriptor_.assign(socket->get(), error);
    if (error) return system_failure(Reaction::refused, "cannot watch TCP " + local.to_string(), error.value());
    listener->local_ = local_endpoint_of(socket->release());
    return listener;
}

void TcpListener::start(AcceptHandler handler) {
    handler_ = std::move(handler);
    wait_readable();
}

void TcpListener::wait_readable() {
    descriptor_.async_wait(asio::posix::descriptor_base::wait_read,
                           [self = shared_from_this()](const asio::error_code& error) {
                               if (error || !self->descriptor_.is_open()) return;
                               if (self->accept_some()) {
                                   if (self->descriptor_.is_open()) self->wait_readable();
                                   return;
                               }
                               self->pause_.expires_after(kAcceptPause);
                               self->pause_.async_wait([self](const asio::error_code& stopped) {
                                   if (!stopped && self->descriptor_.is_open()) self->wait_readable();
                               });
                           });
}

bool TcpListener::accept_some() {
    for (int i = 0; i < kAcceptsPerTurn && descriptor_.is_open(); ++i) {
        sockaddr_storage address{};
        socklen_t length = sizeof address;
        FileDescriptor socket(::accept4(descriptor_.native_handle(), reinterpret_cast<sockaddr*>(&address), &length,
                                        SOCK_NONBLOCK | SOCK_CLOEXEC));
        if (!socket.is_open()) {
            if (errno == EAGAIN || errno == EWOULDBLOCK) return true;
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) return false;
            continue;  // this one connection is gone already (accept(2): ECONNABORTED and network errors)
        }
        const auto remote = Endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&address));
        const Mark mark = mark_of_socket(socket.get());
        if (remote) handler_(std::move(socket), *remote, mark);
    }
    return true;
}

void TcpListener::close() {
    pause_.cancel();
    asio::error_code ignored;
    descriptor_.close(ignored);
}

}  // namespace gmgate::sip
