#include "gmctl/pcap.h"

#include <algorithm>
#include <cstdint>

#include "base/endpoint.h"

namespace gmgate::gmctl {
namespace {

constexpr std::size_t kMost = 65535;
constexpr std::uint8_t kUdp = 17;
constexpr std::size_t kUdpHeader = 8;

void le(std::string& out, std::uint64_t value, int octets) {
    for (int i = 0; i < octets; ++i) out += static_cast<char>(value >> (8 * i));
}
void be(std::string& out, std::uint64_t value, int octets) {
    for (int i = octets - 1; i >= 0; --i) out += static_cast<char>(value >> (8 * i));
}
void put_address(std::string& out, const Address& address) {
    out.append(reinterpret_cast<const char*>(address.bytes().data()), address.size());
}

// RFC 1071
std::uint16_t checksum(std::string_view bytes) {
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        const std::uint32_t octet = static_cast<unsigned char>(bytes[i]);
        sum += i % 2 == 0 ? octet << 8 : octet;
    }
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<std::uint16_t>(~sum);
}

std::string udp_datagram(const Endpoint& from, const Endpoint& to, std::string_view payload) {
    const auto length = kUdpHeader + payload.size();
    std::string header;
    be(header, from.port.value, 2);
    be(header, to.port.value, 2);
    be(header, length, 2);
    std::string pseudo;  // RFC 768 and RFC 8200 §8.1: the two lay out the same sum
    put_address(pseudo, from.address);
    put_address(pseudo, to.address);
    be(pseudo, length, 4);
    be(pseudo, kUdp, 4);
    std::string all = pseudo + header;
    be(all, 0, 2);
    all += payload;
    const auto sum = checksum(all);
    be(header, sum == 0 ? 0xffff : sum, 2);
    return header + std::string(payload);
}

}  // namespace

std::string pcap_header() {
    std::string out;
    le(out, 0xa1b2c3d4, 4);
    le(out, 2, 2);
    le(out, 4, 2);
    le(out, 0, 8);  // time zone, accuracy
    le(out, kMost, 4);
    le(out, 101, 4);  // LINKTYPE_RAW
    return out;
}

std::string pcap_record(const LadderMessage& message) {
    const auto from = Endpoint::parse(message.source), to = Endpoint::parse(message.destination);
    if (!from || !to || from->address.family() != to->address.family()) return {};
    const bool is_v6 = from->address.is_v6();
    const std::size_t ip_header = is_v6 ? 40 : 20;
    const auto whole = message.bytes.size();
    const auto payload = std::string_view(message.bytes).substr(0, std::min(whole, kMost - ip_header - kUdpHeader));
    const auto datagram = udp_datagram(*from, *to, payload);
    std::string packet;
    if (is_v6) {
        be(packet, 0x60000000, 4);
        be(packet, datagram.size(), 2);
        be(packet, kUdp, 1);
        be(packet, 64, 1);
        put_address(packet, from->address);
        put_address(packet, to->address);
    } else {
        be(packet, 0x4500, 2);
        be(packet, ip_header + datagram.size(), 2);
        be(packet, 0, 4);
        be(packet, 64, 1);
        be(packet, kUdp, 1);
        std::string addresses;
        put_address(addresses, from->address);
        put_address(addresses, to->address);
        be(packet, checksum(packet + std::string(2, '\0') + addresses), 2);
        packet += addresses;
    }
    packet += datagram;
    std::string record;
    le(record, static_cast<std::uint64_t>(message.microseconds / 1'000'000), 4);
    le(record, static_cast<std::uint64_t>(message.microseconds % 1'000'000), 4);
    le(record, packet.size(), 4);
    le(record, packet.size() + (whole - payload.size()), 4);
    return record + packet;
}

}  // namespace gmgate::gmctl
