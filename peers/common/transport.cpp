#include "transport.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace gmgate::peers {
namespace {

Endpoint name_of(int fd, int (*query)(int, sockaddr*, socklen_t*)) {
    sockaddr_storage storage{};
    socklen_t size = sizeof storage;
    query(fd, reinterpret_cast<sockaddr*>(&storage), &size);
    return Endpoint::from(storage);
}

Result<Fd> bound_socket(const Endpoint& local, int type) {
    Fd fd(socket(local.family(), type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd) return fail("socket: {}", std::strerror(errno));
    const int on = 1;
    if (local.is_v6()) setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (type == SOCK_STREAM) {
        setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    if (bind(fd.get(), local.raw(), local.raw_size()) != 0)
        return fail("cannot bind {} {}: {}", type == SOCK_STREAM ? "TCP" : "UDP", local.to_string(),
                    std::strerror(errno));
    return fd;
}

}  // namespace

Result<std::unique_ptr<UdpPort>> UdpPort::open(Loop& loop, const Endpoint& local, Receive receive) {
    auto fd = bound_socket(local, SOCK_DGRAM);
    if (!fd) return std::unexpected(fd.error());
    // What comes while the machine does something else for a second. Without CAP_NET_ADMIN net.core.rmem_max (208 KB)
    // is the limit, and half a second at 50 calls/s is enough to lose responses.
    const int buffer = 8 << 20;
    if (setsockopt(fd->get(), SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer) != 0)
        setsockopt(fd->get(), SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    std::unique_ptr<UdpPort> out(new UdpPort);
    out->fd_ = std::move(*fd);
    out->local_ = name_of(out->fd_.get(), &getsockname);
    out->receive_ = std::move(receive);
    out->watch_ = loop.watch(out->fd_.get(), [port = out.get()](Loop::Ready) { port->on_readable(); });
    return out;
}

void UdpPort::on_readable() {
    std::array<char, 65536> buffer;
    sockaddr_storage from{};
    socklen_t size = sizeof from;
    // One datagram per wake-up: the callback may destroy this port, and epoll (level-triggered) comes back for the
    // rest.
    const ssize_t got = recvfrom(fd_.get(), buffer.data(), buffer.size(), 0, reinterpret_cast<sockaddr*>(&from), &size);
    if (got < 0) return;  // EAGAIN, or an ICMP error for an earlier send: the sender's timers deal with it
    const Receive receive = receive_;
    receive(std::string(buffer.data(), static_cast<std::size_t>(got)), Endpoint::from(from));
}

Result<void> UdpPort::send(std::string_view text, const Endpoint& to) {
    // A pending ICMP error of an earlier datagram is reported by the next send: then send once more.
    for (int attempt = 0; attempt < 2; ++attempt)
        if (sendto(fd_.get(), text.data(), text.size(), 0, to.raw(), to.raw_size()) >= 0) return {};
    return fail("send from {} to {}: {}", local_.to_string(), to.to_string(), std::strerror(errno));
}

Result<std::unique_ptr<TcpConnection>> TcpConnection::connect(Loop& loop, const Endpoint& local, const Endpoint& remote,
                                                              Events events, std::shared_ptr<const TlsContext> tls) {
    auto fd = bound_socket(local, SOCK_STREAM);
    if (!fd) return std::unexpected(fd.error());
    if (::connect(fd->get(), remote.raw(), remote.raw_size()) != 0 && errno != EINPROGRESS)
        return fail("connect {} -> {}: {}", local.to_string(), remote.to_string(), std::strerror(errno));
    std::unique_ptr<TcpConnection> out(new TcpConnection);
    out->fd_ = std::move(*fd);
    out->local_ = name_of(out->fd_.get(), &getsockname);
    out->remote_ = remote;
    out->events_ = std::move(events);
    out->secure(std::move(tls));
    out->start(loop);
    out->watch_.want_write(true);
    return out;
}

Result<std::unique_ptr<TcpConnection>> TcpConnection::adopt(Loop& loop, Fd fd, Events events,
                                                            std::shared_ptr<const TlsContext> tls) {
    std::unique_ptr<TcpConnection> out(new TcpConnection);
    out->fd_ = std::move(fd);
    const int on = 1;
    setsockopt(out->fd_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    out->local_ = name_of(out->fd_.get(), &getsockname);
    out->remote_ = name_of(out->fd_.get(), &getpeername);
    out->connected_ = true;
    out->events_ = std::move(events);
    out->secure(std::move(tls));
    out->start(loop);
    return out;
}

TcpConnection::~TcpConnection() {
    watch_.stop();
    if (tls_) {
        tls_->shut_down();
        return;
    }
    const linger reset{1, 0};
    if (fd_) setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
}

void TcpConnection::start(Loop& loop) {
    watch_ = loop.watch(fd_.get(), [this](Loop::Ready ready) { on_ready(ready); });
}

void TcpConnection::on_ready(Loop::Ready ready) {
    if (ready.writable && !connected_) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &size);
        if (error != 0) return close(std::strerror(error));
        connected_ = true;
    }
    if (!secured_) go_on_with_handshake();
    if (!secured_ || !open_) return;
    if (ready.writable) flush();
    // TLS may have decrypted more than was asked for, and a handshake that ended here may have brought data along: read
    // in any case.
    if ((ready.readable || tls_) && open_) read_all();
}

void TcpConnection::secure(std::shared_ptr<const TlsContext> tls) {
    if (!tls) return;
    secured_ = false;
    tls_ = std::make_unique<TlsSession>(std::move(tls), fd_.get());
}

void TcpConnection::go_on_with_handshake() {
    const TlsStep step = tls_->handshake();
    if (step == TlsStep::failed || step == TlsStep::closed) return close("TLS handshake: " + tls_->why());
    watch_.want_write(step == TlsStep::want_write);
    if (step != TlsStep::done) return;
    secured_ = true;
    flush();
}

void TcpConnection::send(std::string_view text) {
    if (!open_) return;
    out_ += text;
    if (connected_ && secured_) flush();
}

std::optional<std::size_t> TcpConnection::write_some(std::string_view bytes) {
    if (tls_) {
        std::size_t sent = 0;
        const TlsStep step = tls_->write(bytes, sent);
        if (step == TlsStep::done) return sent;
        if (step == TlsStep::failed || step == TlsStep::closed) close(tls_->why());
        return std::nullopt;
    }
    const ssize_t sent = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent >= 0) return static_cast<std::size_t>(sent);
    if (errno != EAGAIN && errno != EINTR) close(std::strerror(errno));
    return std::nullopt;
}

std::optional<std::size_t> TcpConnection::read_some(std::span<char> buffer) {
    if (tls_) {
        std::size_t got = 0;
        const TlsStep step = tls_->read(buffer, got);
        if (step == TlsStep::done) return got;
        if (step == TlsStep::closed) close("closed by the peer");
        if (step == TlsStep::failed) close(tls_->why());
        return std::nullopt;
    }
    const ssize_t got = recv(fd_.get(), buffer.data(), buffer.size(), 0);
    if (got > 0) return static_cast<std::size_t>(got);
    if (got == 0) close("closed by the peer");
    else if (errno != EAGAIN && errno != EINTR) close(std::strerror(errno));
    return std::nullopt;
}

void TcpConnection::flush() {
    while (!out_.empty()) {
        const auto sent = write_some(out_);
        if (!open_) return;
        if (!sent) break;
        out_.erase(0, *sent);
    }
    watch_.want_write(!out_.empty());
}

void TcpConnection::read_all() {
    std::array<char, 16384> buffer;
    while (const auto got = read_some(buffer)) {
        framer_.feed({buffer.data(), *got});
        for (;;) {
            auto message = framer_.next();
            if (!message) return close(message.error().text);
            if (!*message) break;
            events_.message(*this, std::move(**message));
            if (!open_) return;
        }
        for (int pings = framer_.take_pings(); pings > 0; --pings) send("\r\n");  // RFC 5626 §3.5.1
        if (!open_) return;
    }
}

void TcpConnection::close(std::string reason) {
    if (!open_) return;
    open_ = false;
    watch_.stop();
    events_.closed(*this, std::move(reason));
}

Result<std::unique_ptr<TcpListener>> TcpListener::open(Loop& loop, const Endpoint& local, Accept accept) {
    auto fd = bound_socket(local, SOCK_STREAM);
    if (!fd) return std::unexpected(fd.error());
    if (listen(fd->get(), 128) != 0)
        return fail("cannot listen on TCP {}: {}", local.to_string(), std::strerror(errno));
    std::unique_ptr<TcpListener> out(new TcpListener);
    out->fd_ = std::move(*fd);
    out->local_ = name_of(out->fd_.get(), &getsockname);
    out->accept_ = std::move(accept);
    out->watch_ = loop.watch(out->fd_.get(), [listener = out.get()](Loop::Ready) {
        sockaddr_storage from{};
        socklen_t size = sizeof from;
        Fd accepted(
            accept4(listener->fd_.get(), reinterpret_cast<sockaddr*>(&from), &size, SOCK_NONBLOCK | SOCK_CLOEXEC));
        if (accepted) listener->accept_(std::move(accepted), Endpoint::from(from));
    });
    return out;
}

std::size_t raise_file_limit() {
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    getrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur;
}

}  // namespace gmgate::peers
