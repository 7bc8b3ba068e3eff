#include "daemon/nat/encap_sockets.h"

#include <algorithm>
#include <array>
#include <cerrno>

#include <linux/filter.h>
#include <linux/sock_diag.h>
#include <linux/udp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "daemon/cluster/held_sockets.h"
#include "xfrm/sa.h"

namespace gmgate::daemon {
namespace {

// What the kernel does not take out itself comes to this filter: none of it is for us.
bool drop_all(int fd) {
    sock_filter nothing = BPF_STMT(BPF_RET | BPF_K, 0);
    const sock_fprog program{1, &nothing};
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0;
}

Result<sip::FileDescriptor> open_one(const Endpoint& local, bool is_ahead) {
    sip::FileDescriptor fd(::socket(local.address.af(), SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    const auto failed = [&](const char* what, int code) {
        return system_failure(Reaction::refused,
                              std::string("nat-traversal: cannot ") + what + " UDP " + local.to_string(), code);
    };
    if (!fd.is_open()) return failed("open", errno);
    const int on = 1, type = UDP_ENCAP_ESPINUDP;
    if (local.address.is_v6()) static_cast<void>(setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on));
    if (is_ahead && !bind_anywhere(fd.get())) return failed("bind ahead", errno);
    if (!drop_all(fd.get())) return failed("filter", errno);
    if (setsockopt(fd.get(), IPPROTO_UDP, UDP_ENCAP, &type, sizeof type) != 0)
        return failed("have the kernel take ESP out of (CONFIG_XFRM, module esp4 or esp6)", errno);
    sockaddr_storage address{};
    const socklen_t length = local.to_sockaddr(address);
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0)
        return failed("have (an IKE daemon may hold it: give it other addresses, or set nat-traversal = \"off\")",
                      errno);
    return fd;
}

}  // namespace

EncapSockets::EncapSockets(std::vector<Address> addresses) : addresses_(std::move(addresses)) {}

bool EncapSockets::is_ours(const Endpoint& local) const {
    return local.port == xfrm::kEncapsulationPort && std::ranges::find(addresses_, local.address) != addresses_.end();
}

void EncapSockets::inherit(sip::FileDescriptor socket) {
    const auto local = sip::local_endpoint_of(socket.get());
    sockets_.insert_or_assign(local.address, std::move(socket));
}

Result<void> EncapSockets::open(bool is_ahead) {
    for (const auto& address : addresses_) {
        if (sockets_.contains(address)) continue;
        auto socket = open_one({address, xfrm::kEncapsulationPort}, is_ahead);
        if (!socket) return std::unexpected(socket.error());
        sockets_.emplace(address, std::move(*socket));
    }
    return {};
}

void EncapSockets::for_each_socket(const std::function<void(const Endpoint&, int descriptor)>& f) const {
    for (const auto& [address, socket] : sockets_) f({address, xfrm::kEncapsulationPort}, socket.get());
}

std::uint64_t EncapSockets::stray_datagrams() const {
    std::uint64_t sum = 0;
    for (const auto& [address, socket] : sockets_) {
        std::array<std::uint32_t, SK_MEMINFO_VARS> told{};
        socklen_t length = sizeof told;
        if (getsockopt(socket.get(), SOL_SOCKET, SO_MEMINFO, told.data(), &length) == 0) sum += told[SK_MEMINFO_DROPS];
    }
    return sum;
}

}  // namespace gmgate::daemon
