#include "tests/integration/xfrm_lab.h"

#include <cstdio>
#include <fstream>
#include <functional>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef SO_RCVMARK
#define SO_RCVMARK 75  // linux 5.19
#endif

namespace gmgate::test {
namespace {

Fd namespace_of_the_moment() { return Fd(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)); }

Fd new_namespace() {
    REQUIRE_MESSAGE(unshare(CLONE_NEWNET) == 0, "a network namespace of its own: run this as root");
    return namespace_of_the_moment();
}

}  // namespace

Fd::~Fd() {
    if (fd_ >= 0) close(fd_);
}

std::string shell(const std::string& command) {
    std::string out;
    FILE* pipe = popen((command + " 2>&1").c_str(), "r");
    REQUIRE(pipe);
    char piece[4096];
    while (const auto size = fread(piece, 1, sizeof piece, pipe)) out.append(piece, size);
    const int status = pclose(pipe);
    CAPTURE(command);
    CAPTURE(out);
    REQUIRE(status == 0);
    return out;
}

Lab::Lab() : home_(namespace_of_the_moment()), gateway_(new_namespace()), ue_(new_namespace()) {
    const auto gateway_path = "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(gateway_.get());
    shell("ip link add ue0 type veth peer name gw0 netns " + gateway_path);
    shell(
        "ip link set lo up; ip link set ue0 up; ip addr add 192.0.2.9/24 dev ue0; ip addr add 2001:db8:1::9/64 dev ue0 nodad");
    enter_gateway();
    shell(
        "ip link set lo up; ip link set gw0 up; ip addr add 192.0.2.1/24 dev gw0; ip addr add 2001:db8:1::1/64 dev gw0 nodad");
    // The kernel reports the carrier of a new veth pair a little later than the pair: an address watch that starts
    // before would see it come.
    shell(
        "for i in $(seq 600); do ip link show gw0 | grep -q 'state UP' && exit 0; sleep 0.05; done; ip link show gw0; exit 1");
    gateway_kernel_ = std::make_unique<xfrm::NetlinkKernel>(io_.get_executor(), clock_);
    ue_kernel_ = std::make_unique<xfrm::NetlinkKernel>(io_.get_executor(), clock_);
    // The sockets belong to the namespace in which they are first used.
    REQUIRE(finish(io_, gateway_kernel_->dump()));
    enter_ue();
    REQUIRE(finish(io_, ue_kernel_->dump()));
    enter_gateway();
}

Lab::~Lab() { enter(home_); }

void Lab::enter(const Fd& where) { REQUIRE(setns(where.get(), CLONE_NEWNET) == 0); }

Address Lab::gateway_address(Family family) const {
    return *Address::parse(family == Family::v4 ? "192.0.2.1" : "2001:db8:1::1");
}
Address Lab::ue_address(Family family) const {
    return *Address::parse(family == Family::v4 ? "192.0.2.9" : "2001:db8:1::9");
}

xfrm::SetParameters lab_set(const Lab& lab, Family family, AlgorithmPair pair) {
    xfrm::SetParameters p{};
    p.ue = lab.ue_address(family);
    p.gateway = lab.gateway_address(family);
    p.port_uc = Port{5064};
    p.port_us = Port{5066};
    p.port_pc = Port{6100};
    p.port_ps = Port{6101};
    p.spi_uc = Spi{1111};
    p.spi_us = Spi{2222};
    p.spi_pc = Spi{0x10001111};
    p.spi_ps = Spi{0x10002222};
    p.algorithms = pair;
    return p;
}

xfrm::SetParameters mirrored(const xfrm::SetParameters& p) {
    auto m = p;
    m.ue = p.gateway;
    m.gateway = p.ue;
    m.port_uc = p.port_pc;
    m.port_ps = p.port_us;
    m.spi_ps = p.spi_us;
    m.port_us = p.port_ps;
    m.port_pc = p.port_uc;
    m.spi_pc = p.spi_uc;
    m.spi_us = p.spi_ps;
    m.spi_uc = p.spi_pc;
    return m;
}

xfrm::SetRequest request_for(const xfrm::SetParameters& p, Mark mark, std::chrono::seconds lifetime) {
    constexpr std::array<std::uint8_t, 16> ck{0xb4, 0x0b, 0xa9, 0xa3, 0xc5, 0x8b, 0x2a, 0x05,
                                              0xbb, 0xf0, 0xd9, 0x87, 0xb2, 0x1b, 0xf8, 0xcb};
    constexpr std::array<std::uint8_t, 16> ik{0xf7, 0x69, 0xbc, 0xd7, 0x51, 0x04, 0x46, 0x04,
                                              0x12, 0x76, 0x72, 0x71, 0x1c, 0x6d, 0x34, 0x41};
    auto keys = xfrm::derive_esp_keys(p.algorithms, xfrm::Key128(ck), xfrm::Key128(ik));
    REQUIRE(keys);
    return xfrm::SetRequest{.parameters = p, .keys = std::move(*keys), .mark = mark, .lifetime = lifetime};
}

Fd bound_socket(int type, const Endpoint& local) {
    Fd socket(::socket(local.address.af(), type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    REQUIRE(socket.get() >= 0);
    const int on = 1;
    setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(socket.get(), SOL_SOCKET, SO_RCVMARK, &on, sizeof on);
    sockaddr_storage where{};
    const auto size = local.to_sockaddr(where);
    REQUIRE(bind(socket.get(), reinterpret_cast<sockaddr*>(&where), size) == 0);
    return socket;
}

bool send_to(const Fd& socket, const Endpoint& to, std::string_view text) {
    sockaddr_storage where{};
    const auto size = to.to_sockaddr(where);
    return sendto(socket.get(), text.data(), text.size(), 0, reinterpret_cast<sockaddr*>(&where), size) ==
           static_cast<ssize_t>(text.size());
}

std::optional<Received> receive(const Fd& socket) {
    pollfd wanted{socket.get(), POLLIN, 0};
    if (poll(&wanted, 1, static_cast<int>(std::chrono::milliseconds(kPatience).count())) != 1) return std::nullopt;
    char data[4096];
    iovec piece{data, sizeof data};
    alignas(cmsghdr) char control[256];
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const auto size = recvmsg(socket.get(), &message, MSG_DONTWAIT);
    if (size < 0) return std::nullopt;
    Received out{std::string(data, static_cast<std::size_t>(size)), 0};
    for (auto* c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_MARK)
            std::memcpy(&out.mark, CMSG_DATA(c), sizeof out.mark);
    return out;
}

std::uint64_t xfrm_stat(std::string_view name) {
    std::ifstream file("/proc/thread-self/net/xfrm_stat");
    std::string word;
    std::uint64_t value = 0;
    while (file >> word >> value)
        if (word == name) return value;
    FAIL("no such counter in xfrm_stat");
    return 0;
}

}  // namespace gmgate::test
