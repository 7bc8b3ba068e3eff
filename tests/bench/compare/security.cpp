#include "tests/bench/compare/security.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <stdexcept>

#include <arpa/inet.h>
#include <linux/netlink.h>
#include <linux/xfrm.h>
#include <netinet/in.h>
#include <unistd.h>

namespace gmgate::bench {
namespace {

constexpr std::uint32_t kReqId = 77;
// IK (filled up to 160 bits with zeroes) and CK of TS 35.208, test set 1, which the core sends.
constexpr std::uint8_t kIk[20] = {0xf7, 0x69, 0xbc, 0xd7, 0x51, 0x04, 0x46, 0x04, 0x12, 0x76,
                                  0x72, 0x71, 0x1c, 0x6d, 0x34, 0x41, 0,    0,    0,    0};
constexpr std::uint8_t kCk[16] = {0xb4, 0x0b, 0xa9, 0xa3, 0xc5, 0x8b, 0x2a, 0x05,
                                  0xbb, 0xf0, 0xd9, 0x87, 0xb2, 0x1b, 0xf8, 0xcb};

/// Appends a message with a body of type Body to the batch; attributes go behind it.
template <class Body>
class NetlinkMessage {
public:
    NetlinkMessage(std::vector<char>& batch, std::uint16_t type, std::uint16_t flags)
        : batch_(batch), start_(batch.size()) {
        batch_.resize(start_ + NLMSG_SPACE(sizeof(Body)));
        auto* header = this->header();
        header->nlmsg_len = NLMSG_SPACE(sizeof(Body));
        header->nlmsg_type = type;
        header->nlmsg_flags = NLM_F_REQUEST | flags;
    }
    nlmsghdr* header() { return reinterpret_cast<nlmsghdr*>(batch_.data() + start_); }
    Body& body() { return *static_cast<Body*>(NLMSG_DATA(header())); }
    void add(std::uint16_t type, const void* data, std::size_t size) {
        const nlattr attribute{static_cast<std::uint16_t>(NLA_HDRLEN + size), type};
        const auto at = batch_.size();
        batch_.resize(at + NLA_HDRLEN + NLA_ALIGN(size));
        std::memcpy(batch_.data() + at, &attribute, sizeof attribute);
        std::memcpy(batch_.data() + at + NLA_HDRLEN, data, size);
        header()->nlmsg_len = static_cast<std::uint32_t>(batch_.size() - start_);
    }
    /// An algorithm with its key behind it.
    template <class Algorithm, std::size_t N>
    void add_algorithm(std::uint16_t type, Algorithm head, const char* name, const std::uint8_t (&key)[N]) {
        std::strcpy(head.alg_name, name);
        head.alg_key_len = 8 * N;
        char value[sizeof head + N];
        std::memcpy(value, &head, sizeof head);
        std::memcpy(value + sizeof head, key, N);
        add(type, value, sizeof value);
    }

private:
    std::vector<char>& batch_;
    std::size_t start_;
};

void put(xfrm_address_t& out, const Host& host) { std::memcpy(&out, host.octets.data(), 16); }

std::uint8_t whole(int family) { return family == AF_INET6 ? 128 : 32; }

void set_unlimited(xfrm_lifetime_cfg& limits) {
    limits.soft_byte_limit = limits.hard_byte_limit = XFRM_INF;
    limits.soft_packet_limit = limits.hard_packet_limit = XFRM_INF;
}

}  // namespace

SecurityKernel::SecurityKernel(int family)
    : family_(family), fd_(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_XFRM)) {
    sockaddr_nl address{};
    address.nl_family = AF_NETLINK;
    if (fd_ < 0 || bind(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        throw std::runtime_error(std::string("netlink: ") + std::strerror(errno));
}

SecurityKernel::~SecurityKernel() { close(fd_); }

void SecurityKernel::add(std::span<const BenchSa> sas) {
    batch_.clear();
    for (const auto& sa : sas) {
        const std::uint16_t ack = &sa == &sas.back() ? NLM_F_ACK : 0;
        NetlinkMessage<xfrm_usersa_info> message(batch_, XFRM_MSG_NEWSA, NLM_F_CREATE | NLM_F_EXCL | ack);
        auto& info = message.body();
        info.sel.family = info.family = static_cast<std::uint16_t>(family_);
        put(info.sel.saddr, sa.from.host);
        put(info.sel.daddr, sa.to.host);
        info.sel.prefixlen_s = info.sel.prefixlen_d = whole(family_);
        info.sel.sport = htons(sa.from.port);
        info.sel.dport = htons(sa.to.port);
        info.sel.sport_mask = info.sel.dport_mask = 0xffff;
        info.saddr = info.sel.saddr;
        info.id.daddr = info.sel.daddr;
        info.id.spi = htonl(sa.spi);
        info.id.proto = IPPROTO_ESP;
        info.mode = XFRM_MODE_TRANSPORT;
        info.reqid = kReqId;
        info.replay_window = 32;
        set_unlimited(info.lft);
        xfrm_algo_auth auth{};
        auth.alg_trunc_len = 96;
        message.add_algorithm(XFRMA_ALG_AUTH_TRUNC, auth, "hmac(sha1)", kIk);
        message.add_algorithm(XFRMA_ALG_CRYPT, xfrm_algo{}, "cbc(aes)", kCk);
    }
    run("add SA");
}

void SecurityKernel::remove(std::span<const BenchSa> sas) {
    batch_.clear();
    for (const auto& sa : sas) {
        const std::uint16_t ack = &sa == &sas.back() ? NLM_F_ACK : 0;
        NetlinkMessage<xfrm_usersa_id> message(batch_, XFRM_MSG_DELSA, ack);
        put(message.body().daddr, sa.to.host);
        message.body().spi = htonl(sa.spi);
        message.body().family = static_cast<std::uint16_t>(family_);
        message.body().proto = IPPROTO_ESP;
    }
    run("remove SA");
}

void SecurityKernel::protect_to(const Peer& to) { put_policy({Host{family_, {}}, 0}, to); }
void SecurityKernel::protect_from(const Peer& from) { put_policy(from, {Host{family_, {}}, 0}); }

void SecurityKernel::put_policy(const Peer& from, const Peer& to) {
    batch_.clear();
    NetlinkMessage<xfrm_userpolicy_info> message(batch_, XFRM_MSG_NEWPOLICY, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK);
    auto& policy = message.body();
    policy.sel.family = static_cast<std::uint16_t>(family_);
    if (from.port != 0) {
        put(policy.sel.saddr, from.host);
        policy.sel.prefixlen_s = whole(family_);
        policy.sel.sport = htons(from.port);
        policy.sel.sport_mask = 0xffff;
    }
    if (to.port != 0) {
        put(policy.sel.daddr, to.host);
        policy.sel.prefixlen_d = whole(family_);
        policy.sel.dport = htons(to.port);
        policy.sel.dport_mask = 0xffff;
    }
    policy.dir = XFRM_POLICY_OUT;
    policy.action = XFRM_POLICY_ALLOW;
    set_unlimited(policy.lft);
    xfrm_user_tmpl required{};
    required.family = static_cast<std::uint16_t>(family_);
    required.id.proto = IPPROTO_ESP;
    required.mode = XFRM_MODE_TRANSPORT;
    required.reqid = kReqId;
    required.aalgos = required.ealgos = required.calgos = ~0U;
    message.add(XFRMA_TMPL, &required, sizeof required);
    run("add policy");
}

void SecurityKernel::run(const char* what) {
    char answer[8192];
    send(fd_, batch_.data(), batch_.size(), 0);
    const auto size = recv(fd_, answer, sizeof answer, 0);
    const auto* header = reinterpret_cast<const nlmsghdr*>(answer);
    if (size < static_cast<ssize_t>(NLMSG_LENGTH(sizeof(nlmsgerr))) || header->nlmsg_type != NLMSG_ERROR) return;
    const int error = static_cast<const nlmsgerr*>(NLMSG_DATA(header))->error;
    static int complaints = 0;
    if (error != 0 && complaints++ < 5) std::fprintf(stderr, "%s: %s\n", what, std::strerror(-error));
}

}  // namespace gmgate::bench
