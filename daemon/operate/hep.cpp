#include "daemon/operate/hep.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include <fmt/format.h>

namespace gmgate::daemon {
namespace {

// Chunk types of vendor 0 (HEP3 specification, table of generic chunks).
enum Chunk : std::uint16_t {
    kFamily = 1,
    kProtocol = 2,
    kSource4 = 3,
    kDestination4 = 4,
    kSource6 = 5,
    kDestination6 = 6,
    kSourcePort = 7,
    kDestinationPort = 8,
    kSeconds = 9,
    kMicroseconds = 10,
    kPayloadType = 11,
    kCaptureId = 12,
    kPayload = 15,
    kCorrelation = 17
};
constexpr std::uint8_t kSip = 1;

void put(std::string& out, std::uint64_t value, int octets) {
    for (int i = octets - 1; i >= 0; --i) out += static_cast<char>(value >> (8 * i));
}

void chunk(std::string& out, Chunk type, std::string_view value) {
    put(out, 0, 2);
    put(out, type, 2);
    put(out, 6 + value.size(), 2);
    out += value;
}

void number(std::string& out, Chunk type, std::uint64_t value, int octets) {
    std::string bytes;
    put(bytes, value, octets);
    chunk(out, type, bytes);
}

}  // namespace

std::string hep_packet(const TracedMessage& message, std::uint32_t capture_id) {
    const bool is_v6 = message.source.address.is_v6();
    const auto address = [](const Endpoint& end) {
        return std::string_view(reinterpret_cast<const char*>(end.address.bytes().data()), end.address.size());
    };
    const auto since = std::chrono::duration_cast<std::chrono::microseconds>(message.time.time_since_epoch()).count();
    std::string body;
    number(body, kFamily, is_v6 ? AF_INET6 : AF_INET, 1);
    number(body, kProtocol, message.transport == sip::Transport::udp ? IPPROTO_UDP : IPPROTO_TCP, 1);
    chunk(body, is_v6 ? kSource6 : kSource4, address(message.source));
    chunk(body, is_v6 ? kDestination6 : kDestination4, address(message.destination));
    number(body, kSourcePort, message.source.port.value, 2);
    number(body, kDestinationPort, message.destination.port.value, 2);
    number(body, kSeconds, static_cast<std::uint64_t>(since / 1'000'000), 4);
    number(body, kMicroseconds, static_cast<std::uint64_t>(since % 1'000'000), 4);
    number(body, kPayloadType, kSip, 1);
    number(body, kCaptureId, capture_id, 4);
    if (!message.impi.empty()) chunk(body, kCorrelation, message.impi.value);
    constexpr std::size_t kMost = 65000;  // of a UDP datagram
    if (body.size() + message.bytes.size() + 12 > kMost) return {};
    chunk(body, kPayload, message.bytes);
    std::string packet = "HEP3";
    put(packet, 6 + body.size(), 2);
    return packet + body;
}

Result<HepSender> HepSender::open(const Endpoint& collector, std::uint32_t capture_id) {
    HepSender sender(socket(collector.address.af(), SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), capture_id);
    sockaddr_storage to{};
    const auto length = collector.to_sockaddr(to);
    if (sender.fd_ < 0 || connect(sender.fd_, reinterpret_cast<const sockaddr*>(&to), length) != 0)
        return system_failure(Reaction::broken, fmt::format("hep-collector {}", collector.to_string()), errno);
    return sender;
}

HepSender::HepSender(HepSender&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), capture_id_(other.capture_id_), sent_(other.sent_), dropped_(other.dropped_) {}

HepSender::~HepSender() {
    if (fd_ >= 0) close(fd_);
}

void HepSender::send(const TracedMessage& message) {
    const auto packet = hep_packet(message, capture_id_);
    const bool taken = !packet.empty() && ::send(fd_, packet.data(), packet.size(), MSG_DONTWAIT | MSG_NOSIGNAL) ==
                                              static_cast<ssize_t>(packet.size());
    ++(taken ? sent_ : dropped_);
}

}  // namespace gmgate::daemon
