#include "tests/support/raw_peer.h"

#include <array>
#include <cerrno>
#include <stdexcept>
#include <system_error>

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/support/fail.h"

namespace gmgate::test {

namespace {

Endpoint endpoint(const std::string& text) {
    const auto parsed = Endpoint::parse(text);
    if (!parsed) throw std::invalid_argument("not an endpoint: " + text);
    return *parsed;
}

}  // namespace

RawPeer::RawPeer(const Namespace& network, Kind kind, const std::string& local, const std::string& remote)
    : kind_(kind), remote_(endpoint(remote)) {
    network.enter([&] {
        const int type = kind == Kind::udp ? SOCK_DGRAM : SOCK_STREAM;
        fd_ = socket(remote_.address.af(), type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd_ < 0) fail("socket");
        const int on = 1;
        setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        const int buffer = 4 << 20;  // what is sent in a storm is answered in one
        setsockopt(fd_, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer);
        sockaddr_storage address{};
        const socklen_t size = endpoint(local).to_sockaddr(address);
        if (bind(fd_, reinterpret_cast<const sockaddr*>(&address), size) != 0) fail("bind " + local);
        if (kind == Kind::tcp) {
            const socklen_t length = remote_.to_sockaddr(address);
            if (connect(fd_, reinterpret_cast<const sockaddr*>(&address), length) != 0 && errno != EINPROGRESS)
                fail("connect " + remote);
        }
    });
}

RawPeer::~RawPeer() { close(fd_); }

bool RawPeer::wait_for(short events, std::chrono::milliseconds patience) const {
    pollfd ready{fd_, events, 0};
    return poll(&ready, 1, static_cast<int>(patience.count())) > 0;
}

bool RawPeer::connects(std::chrono::milliseconds patience) {
    if (!wait_for(POLLOUT, patience)) return false;
    int error = 0;
    socklen_t size = sizeof error;
    return getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
}

void RawPeer::send(std::string_view bytes) {
    sockaddr_storage address{};
    const socklen_t size = remote_.to_sockaddr(address);
    while (!bytes.empty()) {
        const ssize_t done = kind_ == Kind::udp ? sendto(fd_, bytes.data(), bytes.size(), 0,
                                                         reinterpret_cast<const sockaddr*>(&address), size)
                                                : ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
        // A storm fills the send buffer: datagrams count there until the other end has read them.
        if (done < 0 && errno == EAGAIN && wait_for(POLLOUT, kPatience)) continue;
        if (done < 0) fail("send to " + remote_.to_string());
        bytes.remove_prefix(static_cast<std::size_t>(done));
    }
}

std::optional<std::string> RawPeer::receive(std::chrono::milliseconds patience) {
    if (!wait_for(POLLIN, patience)) return std::nullopt;
    std::array<char, 65536> buffer;
    const ssize_t got = recv(fd_, buffer.data(), buffer.size(), 0);
    if (got <= 0) return std::nullopt;  // an ICMP error counts as no answer
    return std::string(buffer.data(), static_cast<std::size_t>(got));
}

std::string RawPeer::receive_until(std::string_view text, std::chrono::milliseconds patience) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    std::string all;
    while (all.find(text) == std::string::npos) {
        const auto left =
            std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
        auto more = left.count() > 0 ? receive(left) : std::nullopt;
        if (!more)
            throw std::runtime_error("no answer with \"" + std::string(text) + "\" from " + remote_.to_string() +
                                     ", but\n" + all);
        all += *more;
    }
    return all;
}

}  // namespace gmgate::test
