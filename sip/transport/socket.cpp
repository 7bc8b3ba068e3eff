#include "sip/transport/socket.h"

#include <cerrno>
#include <string>

#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef SO_RCVMARK
#define SO_RCVMARK 75  // kernel 5.19, newer than Debian 12's libc headers on some machines
#endif

namespace gmgate::sip {
namespace {

constexpr int kUdpBuffer = 4 * 1024 * 1024;  // bursts of a whole cell re-registering
constexpr int kBacklog = 4096;

Result<FileDescriptor> open_socket(const Endpoint& local, int type) {
    FileDescriptor fd(::socket(local.address.af(), type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd.is_open()) return system_failure(Reaction::refused, "cannot open a socket for " + local.to_string(), errno);
    return fd;
}

bool set_option(int fd, int level, int name, int value) {
    return ::setsockopt(fd, level, name, &value, sizeof value) == 0;
}

Result<void> bind_socket(int fd, const Endpoint& local, const char* transport) {
    // IPv4 has its own sockets: a mapped address on an IPv6 socket would give a phone two faces.
    if (local.address.is_v6()) set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    sockaddr_storage address{};
    const socklen_t length = local.to_sockaddr(address);
    if (::bind(fd, reinterpret_cast<const sockaddr*>(&address), length) != 0)
        return system_failure(Reaction::refused, std::string("cannot bind ") + transport + " " + local.to_string(),
                              errno);
    return {};
}

/// The forced variant ignores net.core.rmem_max but needs CAP_NET_ADMIN.
void set_buffers(int fd) {
    if (!set_option(fd, SOL_SOCKET, SO_RCVBUFFORCE, kUdpBuffer)) set_option(fd, SOL_SOCKET, SO_RCVBUF, kUdpBuffer);
    if (!set_option(fd, SOL_SOCKET, SO_SNDBUFFORCE, kUdpBuffer)) set_option(fd, SOL_SOCKET, SO_SNDBUF, kUdpBuffer);
}

Result<void> report_marks(int fd, const std::string& where) {
    if (set_option(fd, SOL_SOCKET, SO_RCVMARK, 1)) return {};
    return system_failure(
        Reaction::refused,
        "the kernel does not report packet marks (SO_RCVMARK needs 5.19 and CAP_NET_ADMIN) on UDP " + where, errno);
}

std::string connection_text(const Endpoint& local, const Endpoint& remote) {
    return "cannot connect TCP " + local.to_string() + " to " + remote.to_string();
}

std::unexpected<Error> connection_failure(const Endpoint& local, const Endpoint& remote, int code) {
    const bool is_occupied = code == EADDRNOTAVAIL && local.port.value != 0;
    return system_failure(
        Reaction::broken,
        connection_text(local, remote) + (is_occupied ? " (the port pair is in use or in TIME_WAIT)" : ""), code);
}

}  // namespace

void FileDescriptor::close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

Result<FileDescriptor> open_udp_socket(const Endpoint& local, bool report_mark) {
    auto fd = open_socket(local, SOCK_DGRAM);
    if (!fd) return fd;
    set_buffers(fd->get());
    if (auto reports = report_mark ? report_marks(fd->get(), local.to_string()) : Result<void>{}; !reports)
        return std::unexpected(std::move(reports.error()));
    return open_udp_socket(local, std::move(*fd));
}

Result<FileDescriptor> prepare_udp_socket(Family family) {
    const Endpoint nowhere{Address::any(family), Port{}};
    auto fd = open_socket(nowhere, SOCK_DGRAM);
    if (!fd) return fd;
    set_buffers(fd->get());
    if (auto reports = report_marks(fd->get(), family == Family::v6 ? "IPv6" : "IPv4"); !reports)
        return std::unexpected(std::move(reports.error()));
    return fd;
}

Result<FileDescriptor> open_udp_socket(const Endpoint& local, FileDescriptor prepared) {
    if (auto bound = bind_socket(prepared.get(), local, "UDP"); !bound)
        return std::unexpected(std::move(bound.error()));
    return prepared;
}

Family family_of(int fd) {
    int domain = 0;
    socklen_t length = sizeof domain;
    return ::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 && domain == AF_INET6 ? Family::v6
                                                                                                : Family::v4;
}

Result<FileDescriptor> open_listening_socket(const Endpoint& local) {
    auto fd = open_socket(local, SOCK_STREAM);
    if (!fd) return fd;
    set_option(fd->get(), SOL_SOCKET, SO_REUSEADDR, 1);
    if (auto bound = bind_socket(fd->get(), local, "TCP"); !bound) return std::unexpected(std::move(bound.error()));
    if (::listen(fd->get(), kBacklog) != 0)
        return system_failure(Reaction::refused, "cannot listen on TCP " + local.to_string(), errno);
    // Only now, so that another listener on this port is still an error: lets our own outgoing connections bind to the
    // port of a listener, which SO_REUSEADDR alone refuses (kernel: inet_csk_bind_conflict, sk2->sk_state ==
    // TCP_LISTEN).
    set_option(fd->get(), SOL_SOCKET, SO_REUSEPORT, 1);
    return fd;
}

Result<FileDescriptor> open_connecting_socket(const Endpoint& local, const Endpoint& remote) {
    if (local.address.family() != remote.address.family())
        return failure(Reaction::internal, connection_text(local, remote) + ": address families differ");
    auto fd = open_socket(local, SOCK_STREAM);
    if (!fd) return fd;
    if (local.port.value != 0) {
        set_option(fd->get(), SOL_SOCKET, SO_REUSEADDR, 1);
        set_option(fd->get(), SOL_SOCKET, SO_REUSEPORT, 1);
        // The pair of ports is the only one that the SAs allow: were it in TIME_WAIT after our close, nothing could be
        // sent for a minute. Set already now, for when the process is killed.
        close_by_reset(fd->get());
    }
    if (auto bound = bind_socket(fd->get(), local, "TCP"); !bound) {
        bound.error().reaction = Reaction::broken;
        return std::unexpected(std::move(bound.error()));
    }
    sockaddr_storage address{};
    const socklen_t length = remote.to_sockaddr(address);
    if (::connect(fd->get(), reinterpret_cast<const sockaddr*>(&address), length) != 0 && errno != EINPROGRESS)
        return connection_failure(local, remote, errno);
    return fd;
}

Result<void> connect_result(int fd, const Endpoint& local, const Endpoint& remote) {
    int error = 0;
    socklen_t length = sizeof error;
    if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) error = errno;
    if (error != 0) return connection_failure(local, remote, error);
    return {};
}

void tune_connection(int fd, std::chrono::milliseconds user_timeout) {
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(user_timeout.count()));
}

void close_by_reset(int fd) {
    const linger now{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

bool may_reset(int fd) {
    linger set{};
    socklen_t length = sizeof set;
    if (::getsockopt(fd, SOL_SOCKET, SO_LINGER, &set, &length) != 0 || set.l_onoff == 0 || set.l_linger != 0)
        return false;
    tcp_info info{};
    length = sizeof info;
    int waiting = 0;
    return ::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) == 0 && info.tcpi_state == TCP_ESTABLISHED &&
           ::ioctl(fd, SIOCOUTQ, &waiting) == 0 && waiting == 0;
}

void close_gently(int fd) {
    const linger off{.l_onoff = 0, .l_linger = 0};
    ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &off, sizeof off);
}

Mark mark_of_socket(int fd) {
    std::uint32_t mark = 0;
    socklen_t length = sizeof mark;
    return ::getsockopt(fd, SOL_SOCKET, SO_MARK, &mark, &length) == 0 ? Mark(mark) : Mark();
}

Endpoint local_endpoint_of(int fd) {
    sockaddr_storage address{};
    socklen_t length = sizeof address;
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) return {};
    return Endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&address)).value_or(Endpoint{});
}

std::optional<Endpoint> remote_endpoint_of(int fd) {
    sockaddr_storage address{};
    socklen_t length = sizeof address;
    if (::getpeername(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) return std::nullopt;
    return Endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&address));
}

namespace {

int option_of(int fd, int name) {
    int value = 0;
    socklen_t length = sizeof value;
    return ::getsockopt(fd, SOL_SOCKET, name, &value, &length) == 0 ? value : -1;
}

}  // namespace

bool is_udp_socket(int fd) { return option_of(fd, SO_TYPE) == SOCK_DGRAM; }
bool is_listening(int fd) { return option_of(fd, SO_ACCEPTCONN) == 1; }

void disconnect(int fd) {
    const sockaddr nobody{.sa_family = AF_UNSPEC, .sa_data = {}};
    ::connect(fd, &nobody, sizeof nobody);
}

}  // namespace gmgate::sip
