#include "lab/packet.h"

#include <array>
#include <cstring>

namespace gmgate::lab {
namespace {

constexpr std::uint8_t kTcp = 6, kUdp = 17, kFragment = 44, kEsp = 50;
constexpr std::size_t kIpv6Header = 40, kUdpHeader = 8, kEspHeader = 8, kIv = 8, kTag = 16;

std::uint8_t octet(std::string_view bytes, std::size_t at) { return static_cast<std::uint8_t>(bytes[at]); }
std::uint16_t number16(std::string_view bytes, std::size_t at) {
    return static_cast<std::uint16_t>(octet(bytes, at) << 8 | octet(bytes, at + 1));
}
std::uint32_t number32(std::string_view bytes, std::size_t at) {
    return std::uint32_t{number16(bytes, at)} << 16 | number16(bytes, at + 2);
}
void put16(std::string& bytes, std::size_t at, std::size_t value) {
    bytes[at] = static_cast<char>(value >> 8);
    bytes[at + 1] = static_cast<char>(value);
}

Address address_at(std::string_view bytes, std::size_t at, bool is_v6) {
    std::array<std::uint8_t, 16> raw{};
    std::memcpy(raw.data(), bytes.data() + at, is_v6 ? 16 : 4);
    return is_v6 ? Address::v6(raw) : Address::v4({raw[0], raw[1], raw[2], raw[3]});
}

bool read_ipv4(std::string_view bytes, IpPacket& packet) {
    if (bytes.size() < 20) return false;
    packet.payload = std::size_t{octet(bytes, 0) & 0x0fU} * 4;
    if (packet.payload < 20 || bytes.size() < packet.payload) return false;
    packet.protocol = octet(bytes, 9);
    packet.is_fragment = (number16(bytes, 6) & 0x3fff) != 0;  // more of them, or not the first
    packet.source = address_at(bytes, 12, false);
    packet.destination = address_at(bytes, 16, false);
    return true;
}

bool read_ipv6(std::string_view bytes, IpPacket& packet) {
    if (bytes.size() < kIpv6Header) return false;
    packet.payload = kIpv6Header;
    packet.protocol = octet(bytes, 6);
    packet.source = address_at(bytes, 8, true);
    packet.destination = address_at(bytes, 24, true);
    if (packet.protocol != kFragment) return true;
    if (bytes.size() < kIpv6Header + 8) return false;
    packet.is_fragment = true;
    packet.protocol = octet(bytes, kIpv6Header);
    packet.payload += 8;
    return true;
}

}  // namespace

std::optional<IpPacket> read_packet(std::string_view bytes) {
    IpPacket packet;
    if (bytes.empty()) return std::nullopt;
    const int version = octet(bytes, 0) >> 4;
    if (version == 4 ? !read_ipv4(bytes, packet) : version != 6 || !read_ipv6(bytes, packet)) return std::nullopt;
    const auto rest = bytes.substr(packet.payload);
    if ((packet.protocol == kUdp || packet.protocol == kTcp) && rest.size() >= 4) {
        packet.from = Port{number16(rest, 0)};
        packet.to = Port{number16(rest, 2)};
    }
    if (packet.is_fragment) return packet;
    auto esp = packet.payload;
    if (packet.protocol == kUdp) {
        if (packet.from != xfrm::kEncapsulationPort && packet.to != xfrm::kEncapsulationPort) return packet;
        esp += kUdpHeader;
    } else if (packet.protocol != kEsp) {
        return packet;
    }
    if (bytes.size() < esp + kEspHeader || number32(bytes, esp) == 0) return packet;  // RFC 3948 §2.2: 0 is IKE
    packet.esp = esp;
    packet.sa = {packet.destination, Spi{number32(bytes, esp)}};
    return packet;
}

std::string without_gmac_iv(const IpPacket& packet, std::string_view bytes) {
    std::string out(bytes);
    if (!packet.esp || bytes.size() < *packet.esp + kEspHeader + kIv + kTag) return out;
    out.erase(*packet.esp + kEspHeader, kIv);
    if (packet.protocol == kUdp) {
        put16(out, packet.payload + 4, number16(bytes, packet.payload + 4) - kIv);
        put16(out, packet.payload + 6, 0);
    }
    if (packet.source.is_v6()) {
        put16(out, 4, number16(bytes, 4) - kIv);
        return out;
    }
    put16(out, 2, number16(bytes, 2) - kIv);
    put16(out, 10, 0);
    std::uint32_t sum = 0;  // RFC 1071
    for (std::size_t at = 0; at < packet.payload; at += 2) sum += number16(out, at);
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
    put16(out, 10, ~sum & 0xffffU);
    return out;
}

}  // namespace gmgate::lab
