// Words for what the kernel refused.
#pragma once

#include "xfrm/netlink/queue.h"

namespace gmgate::xfrm {

/// "the kernel refused <what>: <its words> (<strerror>)"; Reaction::retry when it was short of memory, else refused.
std::unexpected<Error> refusal(const Outcome& outcome, std::string what);
/// "the SA in 192.0.2.1:5064 -> 192.0.2.9:6101, spi 0x1234abcd".
std::string describe(const Sa& sa);
/// "the guard policy in 192.0.2.9:6101".
std::string describe(const GuardPolicy& policy);

}  // namespace gmgate::xfrm
