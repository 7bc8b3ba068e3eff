// Milenage, TS 35.206: the authentication and key generation functions f1, f1*, f2, f3, f4, f5, f5*.
#pragma once

#include "bytes.h"

namespace gmgate::peers {

using Rand = std::array<std::uint8_t, 16>;
using Autn = std::array<std::uint8_t, 16>;
using Auts = std::array<std::uint8_t, 14>;
using Amf = std::array<std::uint8_t, 2>;
using Mac = std::array<std::uint8_t, 8>;

/// A 48-bit sequence number (TS 33.102 §6.3).
struct Sqn {
    std::uint64_t value = 0;
    [[nodiscard]] std::array<std::uint8_t, 6> octets() const;
    [[nodiscard]] static Sqn from_octets(std::span<const std::uint8_t, 6> octets);
    auto operator<=>(const Sqn&) const = default;
};

/// Everything that Milenage yields for one (K, OPc, RAND, SQN, AMF). TS 35.206 §4.1.
struct MilenageOutput {
    Mac mac_a{};                        ///< f1
    Mac mac_s{};                        ///< f1*
    Key<8> res;                         ///< f2
    Key<16> ck;                         ///< f3
    Key<16> ik;                         ///< f4
    std::array<std::uint8_t, 6> ak{};   ///< f5
    std::array<std::uint8_t, 6> aks{};  ///< f5*, for resynchronisation
};

/// OPc = OP xor E[OP]K. TS 35.206 §4.1.
[[nodiscard]] Key<16> opc_from_op(const Key<16>& k, const Key<16>& op);
[[nodiscard]] MilenageOutput milenage(const Key<16>& k, const Key<16>& opc, const Rand& rand, Sqn sqn, const Amf& amf);

}  // namespace gmgate::peers
