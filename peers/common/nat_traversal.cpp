#include "nat_traversal.h"

#include <cerrno>
#include <cstring>

#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <linux/udp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netlink/errno.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <sys/socket.h>

namespace gmgate::peers {
namespace {

// RTM_NEWADDR or RTM_DELADDR of one host address on the loopback interface; libnl's error, negative.
int change_address(int type, int flags, const Endpoint& address) {
    nl_sock* socket = nl_socket_alloc();
    if (!socket) return -NLE_NOMEM;
    int code = nl_connect(socket, NETLINK_ROUTE);
    if (code >= 0) {
        nl_msg* message = nlmsg_alloc_simple(type, NLM_F_REQUEST | flags);
        ifaddrmsg fixed{};
        fixed.ifa_family = static_cast<std::uint8_t>(address.family());
        fixed.ifa_prefixlen = static_cast<std::uint8_t>(address.raw_address_size() * 8);
        fixed.ifa_flags = IFA_F_NODAD;
        fixed.ifa_index = if_nametoindex("lo");
        nlmsg_append(message, &fixed, sizeof fixed, NLMSG_ALIGNTO);
        nla_put(message, IFA_LOCAL, static_cast<int>(address.raw_address_size()), address.raw_address());
        nla_put(message, IFA_ADDRESS, static_cast<int>(address.raw_address_size()), address.raw_address());
        code = nl_send_sync(socket, message);  // frees the message
    }
    nl_socket_free(socket);
    return code;
}

Result<Fd> open_socket(const Endpoint& local) {
    Fd fd(::socket(local.family(), SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const int on = 1, type = UDP_ENCAP_ESPINUDP;
    if (!fd || setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(fd.get(), local.raw(), local.raw_size()) != 0 ||
        setsockopt(fd.get(), IPPROTO_UDP, UDP_ENCAP, &type, sizeof type) != 0)
        return fail("cannot take ESP out of UDP {}: {}", local.to_string(), std::strerror(errno));
    return fd;
}

}  // namespace

Result<std::unique_ptr<NatTraversal>> NatTraversal::open(Loop& loop, const Endpoint& local, const Endpoint& gateway,
                                                         const Endpoint& known, Duration keep_alive) {
    std::unique_ptr<NatTraversal> out(new NatTraversal(loop));
    auto socket = open_socket(local.with_port(kEncapsulationPort));
    if (!socket) return std::unexpected(socket.error());
    out->socket_ = std::move(*socket);
    out->gateway_ = gateway.with_port(kEncapsulationPort);
    out->public_ = known.with_port(0);
    out->interval_ = keep_alive;
    const bool is_own = known.same_address(local);
    const int code = is_own ? -NLE_EXIST : change_address(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, out->public_);
    if (code < 0 && code != -NLE_EXIST)
        return fail("the public address {} cannot be put on the loopback interface: {}", out->public_.address(),
                    nl_geterror(code));
    out->has_added_ = code >= 0;
    if (keep_alive > Duration::zero()) out->keep_alive();
    return out;
}

NatTraversal::~NatTraversal() {
    if (has_added_) change_address(RTM_DELADDR, 0, public_);
}

void NatTraversal::keep_alive() {
    constexpr std::uint8_t kOctet = 0xff;  // RFC 3948 §2.3
    (void)!sendto(socket_.get(), &kOctet, sizeof kOctet, 0, gateway_.raw(), gateway_.raw_size());
    timer_ = loop_.after(interval_, [this] { keep_alive(); });
}

}  // namespace gmgate::peers
