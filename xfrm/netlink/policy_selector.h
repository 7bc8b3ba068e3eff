// What a policy's selector says of our ports. Internal to xfrm/.
#pragma once

#include <optional>

#include <arpa/inet.h>
#include <linux/xfrm.h>

#include "xfrm/netlink/kernel_address.h"
#include "xfrm/sa.h"

namespace gmgate::xfrm {

/// The ports that a selector's port and mask stand for; nullopt for a mask with holes, or none.
inline std::optional<PortBlock> block_of(__be16 port, __be16 mask) {
    const auto size = static_cast<std::uint16_t>(static_cast<std::uint16_t>(~ntohs(mask)) + 1U);
    const PortBlock block{Port{ntohs(port)}, size};
    return block.is_aligned() ? std::optional(block) : std::nullopt;
}

/// Between two addresses, from a block of ports of the first, or from one port of it to one of the other: the selector
/// of a NatPolicy. Which NAT the latter is of its template says alone: `nat` is left out.
inline std::optional<NatPolicy> nat_policy_of(const xfrm_selector& sel, std::uint8_t dir) {
    const unsigned full = sel.family == AF_INET6 ? 128 : 32;
    if (dir != XFRM_POLICY_OUT || sel.proto != 0 || sel.ifindex != 0 || sel.prefixlen_s != full ||
        sel.prefixlen_d != full)
        return std::nullopt;
    const auto block = block_of(sel.sport, sel.sport_mask);
    if (!block) return std::nullopt;
    const auto gateway = address_from(&sel.saddr, sel.family), other = address_from(&sel.daddr, sel.family);
    if (block->size == 1 && sel.dport_mask == 0xffff && sel.dport != 0)
        return NatPolicy{gateway, *block, Address::any(gateway.family()), {other, Port{ntohs(sel.dport)}}};
    if (block->size < 2 || sel.dport_mask != 0) return std::nullopt;
    return NatPolicy{gateway, *block, other};
}

}  // namespace gmgate::xfrm
