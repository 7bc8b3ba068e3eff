// The system calls that open SIP sockets, with the options each kind needs, and a descriptor that closes itself.
#pragma once

#include <chrono>
#include <optional>
#include <utility>

#include "base/endpoint.h"
#include "base/error.h"
#include "base/types.h"

namespace gmgate::sip {

/// Owns one file descriptor.
class FileDescriptor {
public:
    FileDescriptor() = default;
    explicit FileDescriptor(int fd) : fd_(fd) {}
    FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    FileDescriptor& operator=(FileDescriptor&& other) noexcept {
        if (this != &other) {
            close();
            fd_ = std::exchange(other.fd_, -1);
        }
        return *this;
    }
    FileDescriptor(const FileDescriptor&) = delete;
    FileDescriptor& operator=(const FileDescriptor&) = delete;
    ~FileDescriptor() { close(); }

    int get() const { return fd_; }
    bool is_open() const { return fd_ >= 0; }
    int release() { return std::exchange(fd_, -1); }
    void close();

private:
    int fd_ = -1;
};

/// A UDP socket bound to `local`, non-blocking, IPv6 only where it is IPv6, with large kernel buffers. `report_mark`
/// asks for the packet mark of each datagram; the kernel wants CAP_NET_ADMIN or CAP_NET_RAW and 5.19 or later for that.
Result<FileDescriptor> open_udp_socket(const Endpoint& local, bool report_mark);
/// The same in two steps, for a process that gives up its capabilities in between: everything that needs one, on a
/// socket that has no address yet (Reaction::refused as above); and the rest. A prepared socket reports marks whether
/// it is asked for them or not.
Result<FileDescriptor> prepare_udp_socket(Family family);
Result<FileDescriptor> open_udp_socket(const Endpoint& local, FileDescriptor prepared);
/// Which family a prepared socket is of.
Family family_of(int fd);

/// A listening TCP socket. SO_REUSEADDR lets it start over connections in TIME_WAIT; a second listener is still
/// refused. Connections that we open ourselves may share its port (see open_connecting_socket).
Result<FileDescriptor> open_listening_socket(const Endpoint& local);

/// A TCP socket bound to `local` (port 0: the kernel picks) on which a connection to `remote` has been started; it is
/// writable once the connection stands or has failed (connect_result). Many of them share one local port with different
/// remotes. An occupied four-tuple (a live twin, or one in TIME_WAIT) is Reaction::broken. With a port of its own it is
/// set to close by reset.
Result<FileDescriptor> open_connecting_socket(const Endpoint& local, const Endpoint& remote);
/// The outcome of a started connection.
Result<void> connect_result(int fd, const Endpoint& local, const Endpoint& remote);

/// TCP_NODELAY (a SIP message is complete when it is written) and TCP_USER_TIMEOUT (a peer that is gone is noticed).
void tune_connection(int fd, std::chrono::milliseconds user_timeout);
/// The next close() sends RST and leaves no TIME_WAIT behind.
void close_by_reset(int fd);
/// Takes that back: the next close() sends FIN, and what is queued before it.
void close_gently(int fd);
/// True when close_by_reset() was called and a RST would take nothing from the peer: neither end has closed, and
/// everything is acknowledged.
bool may_reset(int fd);

/// SO_MARK: of an accepted connection it is the SYN's mark when net.ipv4.tcp_fwmark_accept is set (kernel-defined, v4
/// and v6).
Mark mark_of_socket(int fd);
Endpoint local_endpoint_of(int fd);
/// Of a connected socket; nullopt when it is not connected any more.
std::optional<Endpoint> remote_endpoint_of(int fd);
bool is_udp_socket(int fd);
bool is_listening(int fd);
/// Ends a TCP connection now, with RST, whoever else holds the socket (kernel: tcp_disconnect).
void disconnect(int fd);

}  // namespace gmgate::sip
