#include "sip/transport/stun.h"

#include <cstdint>
#include <vector>

namespace gmgate::sip {
namespace {

constexpr std::size_t kHeader = 20;
constexpr std::uint16_t kBindingRequest = 0x0001, kBindingResponse = 0x0101, kBindingError = 0x0111;
constexpr std::uint16_t kUsername = 0x0006, kMessageIntegrity = 0x0008, kErrorCode = 0x0009,
                        kUnknownAttributes = 0x000A, kRealm = 0x0014, kNonce = 0x0015, kXorMappedAddress = 0x0020;
constexpr std::uint16_t kComprehensionOptional = 0x8000;
constexpr std::string_view kMagicCookie("\x21\x12\xA4\x42", 4);
constexpr std::size_t kMaxUnknown = 16;  // listed in the answer; the rest is not needed to see the point

std::uint16_t read16(std::string_view bytes, std::size_t at) {
    return static_cast<std::uint16_t>(static_cast<unsigned char>(bytes[at]) << 8 |
                                      static_cast<unsigned char>(bytes[at + 1]));
}

void put16(std::string& out, std::size_t value) {
    out.push_back(static_cast<char>(value >> 8 & 0xFF));
    out.push_back(static_cast<char>(value & 0xFF));
}

void put_attribute(std::string& out, std::uint16_t type, std::string_view value) {
    put16(out, type);
    put16(out, value.size());
    out += value;
    out.append((4 - value.size() % 4) % 4, '\0');
}

/// Attributes that must be understood and are not; nullopt when the list is broken.
std::optional<std::vector<std::uint16_t>> unknown_attributes(std::string_view message) {
    std::vector<std::uint16_t> unknown;
    std::size_t at = kHeader;
    while (at < message.size()) {
        if (message.size() - at < 4) return std::nullopt;
        const std::uint16_t type = read16(message, at);
        const std::size_t padded = (std::size_t{read16(message, at + 2)} + 3) / 4 * 4;
        if (message.size() - at - 4 < padded) return std::nullopt;
        const bool known = type == kUsername || type == kMessageIntegrity || type == kRealm || type == kNonce;
        if (type < kComprehensionOptional && !known && unknown.size() < kMaxUnknown) unknown.push_back(type);
        at += 4 + padded;
    }
    return unknown;
}

/// RFC 5389 §15.2: port and address are XORed with the cookie, an IPv6 address with cookie and transaction id.
std::string xor_mapped(const Endpoint& source, std::string_view request) {
    std::string value(1, '\0');
    value.push_back(source.address.is_v6() ? '\x02' : '\x01');
    put16(value, source.port.value ^ 0x2112u);
    for (std::size_t i = 0; i < source.address.size(); ++i)
        value.push_back(static_cast<char>(source.address.bytes()[i] ^ static_cast<unsigned char>(request[4 + i])));
    return value;
}

std::string unknown_answer(const std::vector<std::uint16_t>& unknown) {
    std::string body, list;
    put_attribute(body, kErrorCode, std::string("\0\0\x04\x14", 4) + "Unknown Attribute");
    for (const auto type : unknown) put16(list, type);
    put_attribute(body, kUnknownAttributes, list);
    return body;
}

}  // namespace

bool is_stun(std::string_view datagram) {
    return datagram.size() >= kHeader && (static_cast<unsigned char>(datagram[0]) & 0xC0) == 0 &&
           datagram.substr(4, 4) == kMagicCookie && read16(datagram, 2) % 4 == 0 &&
           kHeader + read16(datagram, 2) == datagram.size();
}

std::optional<std::string> answer_stun(std::string_view datagram, const Endpoint& source) {
    if (!is_stun(datagram) || read16(datagram, 0) != kBindingRequest) return std::nullopt;
    const auto unknown = unknown_attributes(datagram);
    if (!unknown) return std::nullopt;
    std::string body;
    if (unknown->empty()) put_attribute(body, kXorMappedAddress, xor_mapped(source, datagram));
    else body = unknown_answer(*unknown);
    std::string answer;
    put16(answer, unknown->empty() ? kBindingResponse : kBindingError);
    put16(answer, body.size());
    answer += datagram.substr(4, 16);  // cookie and transaction id
    answer += body;
    return answer;
}

}  // namespace gmgate::sip
