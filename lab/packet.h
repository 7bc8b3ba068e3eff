// IP packets as they cross the access side, read as far as a capture needs it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/endpoint.h"
#include "base/types.h"
#include "xfrm/sa.h"

namespace gmgate::lab {

struct IpPacket {
    Address source, destination;
    std::uint8_t protocol =
        0;  ///< of an IPv6 fragment that which it carries; other extension headers stand for themselves
    bool is_fragment = false;
    std::size_t payload = 0;           ///< where that protocol begins
    Port from, to;                     ///< of UDP and TCP, in the first fragment
    std::optional<std::size_t> esp{};  ///< where ESP begins, also in UDP 4500; not of a fragment
    xfrm::SaId sa{};                   ///< then
};

/// Nullopt: no whole header of IPv4 or IPv6.
std::optional<IpPacket> read_packet(std::string_view bytes);

/// The ESP packet (`packet.esp` is set) without the eight octets of IV that AES-GMAC puts in front of its payload,
/// which is clear: what is left is read as ESP with encryption NULL and a tag of 16 octets. Lengths and the checksum of
/// IPv4 are made good. Unchanged when it is too short to have one.
std::string without_gmac_iv(const IpPacket& packet, std::string_view bytes);

}  // namespace gmgate::lab
