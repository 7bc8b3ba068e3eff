// Blocks of a pcapng file (draft-ietf-opsawg-pcapng): raw IP packets, and secrets of TLS for those who read it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace gmgate::lab {

/// Section header with `comment` and the one interface, link type RAW (IPv4 and IPv6), time in nanoseconds: the begin
/// of a file.
std::string pcapng_begin(std::string_view program, std::string_view comment);

struct CapturedPacket {
    std::uint64_t nanoseconds = 0;  ///< since 1970
    bool is_outward = false;
    std::string_view bytes{};
    std::string_view comment{};  ///< empty: none
};
std::string pcapng_packet(const CapturedPacket& packet);

/// Lines in the format of NSS; they must stand before the packets that they open.
std::string pcapng_tls_secrets(std::string_view lines);

}  // namespace gmgate::lab
