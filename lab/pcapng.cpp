#include "lab/pcapng.h"

namespace gmgate::lab {
namespace {

constexpr std::uint32_t kSection = 0x0a0d0d0a, kInterface = 1, kPacket = 6, kSecrets = 10;
constexpr std::uint32_t kTlsKeyLog = 0x544c534b;
constexpr std::uint16_t kRaw = 101;
// Options: of all blocks, of a section, of an interface, of a packet.
constexpr std::uint16_t kComment = 1, kApplication = 4, kTimeResolution = 9, kFlags = 2;
constexpr std::size_t kLongestOption = 0xffff;

void put(std::string& out, std::uint64_t value, int octets) {
    for (int i = 0; i < octets; ++i) out += static_cast<char>(value >> (8 * i));
}
void pad(std::string& out) { out.resize((out.size() + 3) / 4 * 4, '\0'); }

void option(std::string& out, std::uint16_t code, std::string_view value) {
    value = value.substr(0, kLongestOption);
    put(out, code, 2);
    put(out, value.size(), 2);
    out += value;
    pad(out);
}

std::string block(std::uint32_t type, const std::string& body) {
    std::string out;
    const auto length = body.size() + 12;
    put(out, type, 4);
    put(out, length, 4);
    out += body;
    put(out, length, 4);
    return out;
}

}  // namespace

std::string pcapng_begin(std::string_view program, std::string_view comment) {
    std::string section;
    put(section, 0x1a2b3c4d, 4);
    put(section, 1, 2);
    put(section, 0, 2);
    put(section, ~0ULL, 8);  // the length is not told
    option(section, kComment, comment);
    option(section, kApplication, program);
    put(section, 0, 4);
    std::string interface;
    put(interface, kRaw, 2);
    put(interface, 0, 2);
    put(interface, 0, 4);  // packets are whole
    option(interface, kTimeResolution, "\x09");
    put(interface, 0, 4);
    return block(kSection, section) + block(kInterface, interface);
}

std::string pcapng_packet(const CapturedPacket& packet) {
    std::string body;
    put(body, 0, 4);
    put(body, packet.nanoseconds >> 32, 4);
    put(body, packet.nanoseconds & 0xffffffff, 4);
    put(body, packet.bytes.size(), 4);
    put(body, packet.bytes.size(), 4);
    body += packet.bytes;
    pad(body);
    std::string flags;
    put(flags, packet.is_outward ? 2 : 1, 4);
    option(body, kFlags, flags);
    if (!packet.comment.empty()) option(body, kComment, packet.comment);
    put(body, 0, 4);
    return block(kPacket, body);
}

std::string pcapng_tls_secrets(std::string_view lines) {
    std::string body;
    put(body, kTlsKeyLog, 4);
    put(body, lines.size(), 4);
    body += lines;
    pad(body);
    return block(kSecrets, body);
}

}  // namespace gmgate::lab
