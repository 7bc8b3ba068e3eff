#include "xfrm/export/sa_keys.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <string_view>

#include <libmnl/libmnl.h>
#include <linux/netlink.h>
#include <linux/xfrm.h>
#include <netinet/in.h>

#include "base/secret.h"
#include "xfrm/algorithms.h"

namespace gmgate::xfrm {
namespace {

constexpr unsigned kSequence = 1;

struct CloseSocket {
    void operator()(mnl_socket* socket) const { mnl_socket_close(socket); }
};

struct Reading {
    ReqId reqid;
    std::vector<SaKeys> found{};
};

Address address_of(const xfrm_address_t& address, int family) {
    std::array<std::uint8_t, 16> bytes{};
    std::memcpy(bytes.data(), &address, family == AF_INET6 ? 16 : 4);
    return family == AF_INET6 ? Address::v6(bytes) : Address::v4({bytes[0], bytes[1], bytes[2], bytes[3]});
}

// Name and key of an algorithm attribute, whose fixed part `Algorithm` begins with both name and length of the key.
struct Named {
    std::string_view name;
    std::vector<std::uint8_t> key;
};
template <class Algorithm>
Named read_algorithm(const nlattr* attribute) {
    if (mnl_attr_get_payload_len(attribute) < sizeof(Algorithm)) return {};
    const auto* bytes = static_cast<const std::uint8_t*>(mnl_attr_get_payload(attribute));
    Algorithm fixed;
    std::memcpy(&fixed, bytes, sizeof fixed);
    const auto* name = reinterpret_cast<const char*>(bytes);
    const std::size_t size =
        std::min<std::size_t>((fixed.alg_key_len + 7) / 8, mnl_attr_get_payload_len(attribute) - sizeof(Algorithm));
    return {{name, strnlen(name, sizeof fixed.alg_name)},
            {bytes + sizeof(Algorithm), bytes + sizeof(Algorithm) + size}};
}

struct Algorithms {
    Named auth, crypt, aead;
};

int read_attribute(const nlattr* attribute, void* out) {
    auto& algorithms = *static_cast<Algorithms*>(out);
    const auto type = mnl_attr_get_type(attribute);
    if (type == XFRMA_ALG_AUTH_TRUNC) algorithms.auth = read_algorithm<xfrm_algo_auth>(attribute);
    else if (type == XFRMA_ALG_CRYPT) algorithms.crypt = read_algorithm<xfrm_algo>(attribute);
    else if (type == XFRMA_ALG_AEAD) algorithms.aead = read_algorithm<xfrm_algo_aead>(attribute);
    return MNL_CB_OK;
}

int read_sa(const nlmsghdr* message, void* out) {
    auto& reading = *static_cast<Reading*>(out);
    if (message->nlmsg_type != XFRM_MSG_NEWSA || mnl_nlmsg_get_payload_len(message) < sizeof(xfrm_usersa_info))
        return MNL_CB_OK;
    xfrm_usersa_info info;
    std::memcpy(&info, mnl_nlmsg_get_payload(message), sizeof info);
    if (info.id.proto != IPPROTO_ESP || info.reqid != reading.reqid.value) return MNL_CB_OK;
    Algorithms algorithms;
    mnl_attr_parse(message, sizeof(xfrm_usersa_info), read_attribute, &algorithms);
    auto& [auth, crypt, aead] = algorithms;
    const auto pair = pair_from_names(auth.name, crypt.name, aead.name);
    if (!pair) return MNL_CB_OK;
    SaKeys keys{{address_of(info.id.daddr, info.family), Spi{ntohl(info.id.spi)}},
                address_of(info.saddr, info.family),
                *pair,
                aead.name.empty() ? std::move(crypt.key) : std::move(aead.key),
                std::move(auth.key)};
    reading.found.push_back(std::move(keys));
    return MNL_CB_OK;
}

bool is_blank(const SaKeys& keys) {
    const auto is_zero = [](std::uint8_t octet) { return octet == 0; };
    return std::ranges::all_of(keys.encryption, is_zero) && std::ranges::all_of(keys.integrity, is_zero);
}

}  // namespace

Result<std::vector<SaKeys>> read_sa_keys(ReqId reqid) {
    const std::unique_ptr<mnl_socket, CloseSocket> socket(mnl_socket_open2(NETLINK_XFRM, SOCK_CLOEXEC));
    if (!socket || mnl_socket_bind(socket.get(), 0, MNL_SOCKET_AUTOPID) < 0)
        return system_failure(Reaction::refused, "no netlink socket for the kernel's SAs", errno);
    std::vector<char> buffer(32768);
    auto* request = mnl_nlmsg_put_header(buffer.data());
    request->nlmsg_type = XFRM_MSG_GETSA;
    request->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    request->nlmsg_seq = kSequence;
    if (mnl_socket_sendto(socket.get(), request, request->nlmsg_len) < 0)
        return system_failure(Reaction::refused, "the kernel does not take the question for its SAs", errno);
    Reading reading{reqid};
    int goes_on = MNL_CB_OK;
    while (goes_on > MNL_CB_STOP) {
        const auto size = mnl_socket_recvfrom(socket.get(), buffer.data(), buffer.size());
        goes_on = size <= 0 ? MNL_CB_ERROR
                            : mnl_cb_run(buffer.data(), static_cast<std::size_t>(size), kSequence,
                                         mnl_socket_get_portid(socket.get()), read_sa, &reading);
        const int why = errno;
        wipe(buffer.data(), buffer.size());
        if (goes_on == MNL_CB_ERROR)
            return system_failure(Reaction::refused, "the kernel does not tell its SAs (CAP_NET_ADMIN is needed)", why);
    }
    if (!reading.found.empty() && std::ranges::all_of(reading.found, is_blank))
        return failure(Reaction::refused, "the kernel gives no keys: it is locked down (kernel_lockdown(7))");
    return std::move(reading.found);
}

}  // namespace gmgate::xfrm
