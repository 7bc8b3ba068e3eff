#include "daemon/cluster/held_sockets.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <optional>

#include <netinet/in.h>
#include <sys/socket.h>

#include "base/log.h"

namespace gmgate::daemon {
namespace {

constexpr int kBacklog = 4096;  // as of sip/transport

bool is_v6(int descriptor) { return sip::family_of(descriptor) == Family::v6; }

std::optional<sip::FileDescriptor> listening(const Endpoint& local) {
    const int on = 1;
    sip::FileDescriptor fd(::socket(local.address.af(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd.is_open() || !bind_anywhere(fd.get())) return std::nullopt;
    setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (local.address.is_v6()) setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    sockaddr_storage address{};
    const socklen_t length = local.to_sockaddr(address);
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0) return std::nullopt;
    if (::listen(fd.get(), kBacklog) != 0) return std::nullopt;
    // As sip::open_listening_socket() does it: only now.
    setsockopt(fd.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    return fd;
}

void throw_away(int descriptor) {
    char room[1];
    while (::recv(descriptor, room, sizeof room, MSG_DONTWAIT | MSG_TRUNC) >= 0) {}
}

}  // namespace

bool bind_anywhere(int descriptor) {
    const int on = 1;
    return is_v6(descriptor) ? setsockopt(descriptor, IPPROTO_IPV6, IPV6_FREEBIND, &on, sizeof on) == 0
                             : setsockopt(descriptor, IPPROTO_IP, IP_FREEBIND, &on, sizeof on) == 0;
}

HeldSockets::HeldSockets(std::vector<Wish> wishes, std::vector<sip::FileDescriptor> prepared)
    : wishes_(std::move(wishes)), prepared_(std::move(prepared)) {}

void HeldSockets::hold(bool accepts) {
    std::size_t missing = 0;
    tcp_.clear();
    for (const auto& wish : wishes_) {
        if (wish.tcp && accepts) {
            if (auto socket = listening(wish.local)) tcp_.push_back(std::move(*socket));
            else ++missing;
        }
        if (!wish.udp || has_bound_) continue;
        const auto at = std::ranges::find_if(prepared_, [&](const sip::FileDescriptor& socket) {
            return is_v6(socket.get()) == wish.local.address.is_v6();
        });
        if (at == prepared_.end() || !bind_anywhere(at->get())) continue;
        auto socket = std::move(*at);
        prepared_.erase(at);
        auto bound = sip::open_udp_socket(wish.local, std::move(socket));
        if (bound) udp_.push_back(std::move(*bound));
        else ++missing;
    }
    has_bound_ = true;
    if (missing != 0)
        log::notice("cluster-sockets-not-held",
                    {{"sockets", missing}, {"why", "they are open already, or somebody else's"}});
}

std::vector<sip::FileDescriptor> HeldSockets::take(bool is_old) {
    if (is_old)
        for (const auto& socket : udp_) throw_away(socket.get());
    auto all = std::exchange(udp_, {});
    std::ranges::move(tcp_, std::back_inserter(all));
    tcp_.clear();
    return all;
}

std::vector<sip::FileDescriptor> HeldSockets::take_unused() { return std::exchange(prepared_, {}); }

}  // namespace gmgate::daemon
