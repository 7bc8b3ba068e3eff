#include "tests/bench/separate_sends.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include <arpa/inet.h>
#include <linux/netlink.h>
#include <linux/xfrm.h>
#include <sys/socket.h>
#include <unistd.h>

namespace gmgate::bench {
namespace {

constexpr std::uint32_t kPolicyPriority = 2080;
constexpr std::uint8_t kReplayWindow = 32;

/// A netlink message that grows at its end.
class Writer {
public:
    Writer(std::uint16_t type, std::uint16_t flags) {
        header().nlmsg_len = NLMSG_HDRLEN;
        header().nlmsg_type = type;
        header().nlmsg_flags = flags;
    }
    template <class T>
    void body(const T& value) {
        append(&value, sizeof value);
    }
    void attribute(std::uint16_t type, const void* data, std::size_t size) {
        const nlattr attribute{.nla_len = static_cast<std::uint16_t>(NLA_HDRLEN + size), .nla_type = type};
        append(&attribute, sizeof attribute);
        append(data, size);
    }
    const void* data() const { return bytes_.data(); }
    std::size_t size() const { return reinterpret_cast<const nlmsghdr*>(bytes_.data())->nlmsg_len; }

private:
    nlmsghdr& header() { return *reinterpret_cast<nlmsghdr*>(bytes_.data()); }
    void append(const void* data, std::size_t size) {
        std::memcpy(bytes_.data() + header().nlmsg_len, data, size);
        header().nlmsg_len += static_cast<std::uint32_t>(NLMSG_ALIGN(size));
    }
    alignas(nlmsghdr) std::array<std::uint8_t, 1024> bytes_{};
};

xfrm_address_t address_of(const Address& address) {
    xfrm_address_t out{};
    std::memcpy(&out, address.bytes().data(), address.size());
    return out;
}

xfrm_lifetime_cfg no_limits() {
    return {.soft_byte_limit = XFRM_INF,
            .hard_byte_limit = XFRM_INF,
            .soft_packet_limit = XFRM_INF,
            .hard_packet_limit = XFRM_INF,
            .soft_add_expires_seconds = 0,
            .hard_add_expires_seconds = 0,
            .soft_use_expires_seconds = 0,
            .hard_use_expires_seconds = 0};
}

xfrm_selector selector_of(const xfrm::Sa& sa) {
    xfrm_selector out{};
    out.family = AF_INET;
    out.saddr = address_of(sa.source.address);
    out.daddr = address_of(sa.destination.address);
    out.prefixlen_s = out.prefixlen_d = 32;
    out.sport = htons(sa.source.port.value);
    out.dport = htons(sa.destination.port.value);
    out.sport_mask = out.dport_mask = 0xffff;
    return out;
}

void add_algorithm(Writer& out, std::uint16_t type, const char* name, std::span<const std::uint8_t> key) {
    alignas(xfrm_algo) std::array<std::uint8_t, sizeof(xfrm_algo) + 32> bytes{};
    auto* algorithm = reinterpret_cast<xfrm_algo*>(bytes.data());
    std::strncpy(algorithm->alg_name, name, sizeof algorithm->alg_name - 1);
    algorithm->alg_key_len = static_cast<unsigned>(key.size() * 8);
    std::memcpy(bytes.data() + sizeof(xfrm_algo), key.data(), key.size());
    out.attribute(type, bytes.data(), sizeof(xfrm_algo) + key.size());
}

Writer new_sa(const xfrm::Sa& sa, const xfrm::EspKeys& keys) {
    Writer out(XFRM_MSG_NEWSA, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL);
    xfrm_usersa_info info{};
    info.sel = selector_of(sa);
    info.id = {.daddr = address_of(sa.id.destination), .spi = htonl(sa.id.spi.value), .proto = IPPROTO_ESP};
    info.saddr = address_of(sa.source.address);
    info.lft = no_limits();
    info.family = AF_INET;
    info.mode = XFRM_MODE_TRANSPORT;
    info.replay_window = kReplayWindow;
    out.body(info);
    add_algorithm(out, XFRMA_ALG_AUTH, "sha1", keys.integrity.expose());
    add_algorithm(out, XFRMA_ALG_CRYPT, "aes", keys.confidentiality.expose());
    return out;
}

Writer new_policy(const xfrm::Sa& sa) {
    Writer out(XFRM_MSG_NEWPOLICY, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL);
    xfrm_userpolicy_info info{};
    info.sel = selector_of(sa);
    info.lft = no_limits();
    info.priority = kPolicyPriority;
    info.dir = sa.direction == xfrm::Direction::in ? XFRM_POLICY_IN : XFRM_POLICY_OUT;
    info.action = XFRM_POLICY_ALLOW;
    out.body(info);
    xfrm_user_tmpl tmpl{};
    tmpl.id = {.daddr = address_of(sa.id.destination), .spi = htonl(sa.id.spi.value), .proto = IPPROTO_ESP};
    tmpl.family = AF_INET;
    tmpl.saddr = address_of(sa.source.address);
    tmpl.mode = XFRM_MODE_TRANSPORT;
    tmpl.aalgos = tmpl.ealgos = tmpl.calgos = 0xffffffff;
    out.attribute(XFRMA_TMPL, &tmpl, sizeof tmpl);
    return out;
}

/// The four of the set, and the four that use the same SPIs with the other pairing of ports.
std::array<xfrm::Sa, 8> eight_sas(const xfrm::SetParameters& set) {
    std::array<xfrm::Sa, 8> out;
    const auto four = xfrm::four_sas(set);
    for (std::size_t i = 0; i < four.size(); ++i) out[i] = out[i + 4] = four[i];
    out[4].destination.port = set.port_pc;  // port_uc → port_pc
    out[5].destination.port = set.port_uc;  // port_pc → port_uc
    out[6].destination.port = set.port_ps;  // port_us → port_ps
    out[7].destination.port = set.port_us;  // port_ps → port_us
    return out;
}

/// For the set-up and the counts: what goes wrong there is an error.
[[noreturn]] void fail(const char* what) { throw std::runtime_error(std::string(what) + ": " + std::strerror(errno)); }

/// Sends one message with the destination and waits for the answer of the kernel.
std::vector<std::uint8_t> ask(const Writer& message) {
    const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_XFRM);
    if (fd < 0) fail("an XFRM netlink socket");
    std::vector<std::uint8_t> answer(4096);
    const bool is_sent = send(fd, message.data(), message.size(), 0) >= 0;
    const ssize_t size = is_sent ? recv(fd, answer.data(), answer.size(), 0) : -1;
    close(fd);
    if (size < 0) fail("an answer of XFRM netlink");
    answer.resize(static_cast<std::size_t>(size));
    return answer;
}

/// The attribute of an answer whose body is one 32-bit number.
template <class T>
T attribute_in(const std::vector<std::uint8_t>& answer, std::uint16_t type) {
    for (std::size_t at = NLMSG_HDRLEN + sizeof(std::uint32_t); at + NLA_HDRLEN <= answer.size();) {
        nlattr attribute{};
        std::memcpy(&attribute, answer.data() + at, sizeof attribute);
        if (attribute.nla_type == type && at + NLA_HDRLEN + sizeof(T) <= answer.size()) {
            T value{};
            std::memcpy(&value, answer.data() + at + NLA_HDRLEN, sizeof value);
            return value;
        }
        at += std::max<std::size_t>(NLA_ALIGN(attribute.nla_len), NLA_HDRLEN);
    }
    throw std::runtime_error("the kernel does not say how many SAs or policies it has");
}

}  // namespace

void install_with_separate_sends(const xfrm::SetParameters& set, const xfrm::EspKeys& keys) {
    const int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_XFRM);
    sockaddr_nl address{};
    address.nl_family = AF_NETLINK;
    bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
    socklen_t size = sizeof address;
    getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);

    sockaddr_nl kernel{};
    kernel.nl_family = AF_NETLINK;
    const auto send_one = [&](const Writer& message) {
        static_cast<void>(
            sendto(fd, message.data(), message.size(), 0, reinterpret_cast<const sockaddr*>(&kernel), sizeof kernel));
    };
    for (const xfrm::Sa& sa : eight_sas(set)) {
        send_one(new_sa(sa, keys));
        send_one(new_policy(sa));
    }
    close(fd);
}

void flush_kernel() {
    Writer sas(XFRM_MSG_FLUSHSA, NLM_F_REQUEST | NLM_F_ACK);
    sas.body(xfrm_usersa_flush{.proto = 0});
    ask(sas);
    Writer policies(XFRM_MSG_FLUSHPOLICY, NLM_F_REQUEST | NLM_F_ACK);
    ask(policies);
}

KernelContents kernel_contents() {
    Writer sad(XFRM_MSG_GETSADINFO, NLM_F_REQUEST);
    sad.body(std::uint32_t{0});
    Writer spd(XFRM_MSG_GETSPDINFO, NLM_F_REQUEST);
    spd.body(std::uint32_t{0});
    const auto counts = attribute_in<xfrmu_spdinfo>(ask(spd), XFRMA_SPD_INFO);
    return {.sas = attribute_in<std::uint32_t>(ask(sad), XFRMA_SAD_CNT), .policies = counts.incnt + counts.outcnt};
}

}  // namespace gmgate::bench
