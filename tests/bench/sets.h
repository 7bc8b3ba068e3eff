// Registrations as a gateway would make them, for the benches of kernel work.
#pragma once

#include <array>
#include <stdexcept>
#include <vector>

#include "xfrm/sa.h"

namespace gmgate::bench {

inline constexpr AlgorithmPair kPair{Alg::hmac_sha_1_96, Ealg::aes_cbc};
inline constexpr std::chrono::seconds kLifetime{600000};

/// One registration of phone number `index`; SPIs, ports and addresses as a gateway would choose them.
inline xfrm::SetParameters set_of(std::size_t index) {
    const auto n = static_cast<std::uint32_t>(index);
    xfrm::SetParameters p{};
    p.ue = Address::v4({10, 46, static_cast<std::uint8_t>(n >> 8), static_cast<std::uint8_t>(n)});
    p.gateway = Address::v4({192, 0, 2, 1});
    p.port_uc = Port{5064};
    p.port_us = Port{5066};
    p.port_pc = Port{6100};
    p.port_ps = Port{6101};
    p.spi_uc = Spi{0x20000 + 2 * n};
    p.spi_us = Spi{0x20001 + 2 * n};
    p.spi_pc = Spi{0x10000000 + 2 * n};
    p.spi_ps = Spi{0x10000001 + 2 * n};
    p.algorithms = kPair;
    return p;
}

inline xfrm::EspKeys example_keys() {
    std::array<std::uint8_t, 16> ck{}, ik{};
    ck.fill(0x5a);
    ik.fill(0xa5);
    auto keys = xfrm::derive_esp_keys(kPair, xfrm::Key128(ck), xfrm::Key128(ik));
    if (!keys) throw std::runtime_error(keys.error().text);
    return std::move(*keys);
}

/// Requests of phones 0 … n-1, made before the clock runs, as the other side's parameters and keys are.
inline std::vector<xfrm::SetRequest> requests(std::size_t n) {
    std::vector<xfrm::SetRequest> out;
    out.reserve(n);
    for (std::size_t i = 0; i < n; ++i)
        out.push_back({.parameters = set_of(i),
                       .keys = example_keys(),
                       .mark = Mark{static_cast<std::uint32_t>(i + 1)},
                       .lifetime = kLifetime});
    return out;
}

}  // namespace gmgate::bench
