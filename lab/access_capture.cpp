#include "lab/access_capture.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <utility>

namespace gmgate::lab {
namespace {

constexpr std::size_t kLongest = 1 << 18;  // what leaves a segmenting interface is longer than its packets
constexpr int kBuffer = 32 << 20;
constexpr std::uint8_t kEsp = 50;

std::uint64_t time_of(const msghdr& message) {
    for (auto* part = CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(const_cast<msghdr*>(&message), part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_TIMESTAMPNS) continue;
        timespec at{};
        std::memcpy(&at, CMSG_DATA(part), sizeof at);
        return static_cast<std::uint64_t>(at.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(at.tv_nsec);
    }
    return 0;
}

}  // namespace

AccessCapture::AccessCapture(AccessCapture&& other) noexcept
    : socket_(std::exchange(other.socket_, -1)),
      addresses_(std::move(other.addresses_)),
      ports_(std::move(other.ports_)),
      buffer_(std::move(other.buffer_)) {}

AccessCapture::~AccessCapture() {
    if (socket_ >= 0) close(socket_);
}

Result<AccessCapture> AccessCapture::open(const daemon::Config& config) {
    AccessCapture capture;
    for (const auto& interface : config.sip_interfaces)
        for (const auto& port : interface.sip_ports) {
            capture.addresses_.insert(port.address);
            capture.ports_.insert({port.address, port.port});
        }
    capture.buffer_.resize(kLongest);
    capture.socket_ = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(ETH_P_ALL));
    if (capture.socket_ < 0) return system_failure(Reaction::refused, "no packet socket (CAP_NET_RAW)", errno);
    const int on = 1;
    if (setsockopt(capture.socket_, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) != 0)
        return system_failure(Reaction::refused, "packets get no time", errno);
    static_cast<void>(setsockopt(capture.socket_, SOL_SOCKET, SO_RCVBUFFORCE, &kBuffer, sizeof kBuffer));
    return capture;
}

bool AccessCapture::is_wanted(const IpPacket& packet) const {
    const bool is_ours = addresses_.contains(packet.source) || addresses_.contains(packet.destination);
    if (!is_ours) return false;
    return packet.is_fragment || packet.protocol == kEsp || packet.esp ||
           ports_.contains({packet.source, packet.from}) || ports_.contains({packet.destination, packet.to});
}

std::optional<AccessCapture::Packet> AccessCapture::next() {
    for (;;) {
        sockaddr_ll from{};
        iovec room{buffer_.data(), buffer_.size()};
        alignas(cmsghdr) char control[256];
        msghdr message{};
        message.msg_name = &from;
        message.msg_namelen = sizeof from;
        message.msg_iov = &room;
        message.msg_iovlen = 1;
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        const auto size = recvmsg(socket_, &message, 0);
        if (size < 0 && errno == EINTR) continue;
        if (size < 0) return std::nullopt;
        const std::string_view bytes(buffer_.data(), static_cast<std::size_t>(size));
        const auto ip = read_packet(bytes);
        if (!ip || !is_wanted(*ip)) continue;
        return Packet{std::string(bytes), time_of(message), from.sll_pkttype == PACKET_OUTGOING, *ip};
    }
}

std::uint64_t AccessCapture::dropped() {
    tpacket_stats stats{};
    socklen_t size = sizeof stats;
    return getsockopt(socket_, SOL_PACKET, PACKET_STATISTICS, &stats, &size) == 0 ? stats.tp_drops : 0;
}

}  // namespace gmgate::lab
