// The fixed structure at the head of a netlink message's payload.
#pragma once

#include <cstring>
#include <optional>

#include <linux/netlink.h>

namespace gmgate::xfrm {

/// A copy, so that alignment does not matter; nullopt when the message is too short for it.
template <class Fixed>
[[nodiscard]] std::optional<Fixed> fixed_part(const nlmsghdr* message) {
    if (message->nlmsg_len < NLMSG_LENGTH(sizeof(Fixed))) return std::nullopt;
    Fixed out;
    std::memcpy(&out, NLMSG_DATA(message), sizeof out);
    return out;
}

}  // namespace gmgate::xfrm
