// How the kernel writes an address. Internal to xfrm/.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

#include <sys/socket.h>

#include "base/endpoint.h"

namespace gmgate::xfrm {

/// The address in network order at `octets`: 16 of them for AF_INET6, else 4 (xfrm_address_t has room for both).
inline Address address_from(const void* octets, int family) {
    if (family == AF_INET6) {
        std::array<std::uint8_t, 16> bytes{};
        std::memcpy(bytes.data(), octets, bytes.size());
        return Address::v6(bytes);
    }
    std::array<std::uint8_t, 4> bytes{};
    std::memcpy(bytes.data(), octets, bytes.size());
    return Address::v4(bytes);
}

}  // namespace gmgate::xfrm
