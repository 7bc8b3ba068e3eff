// Whose address it is, as far as anybody can tell from outside.
#pragma once

#include "base/endpoint.h"

namespace gmgate {

/// What limits per source count: an IPv4 address itself, of an IPv6 address its /64, of which one subscriber has all
/// addresses.
Address source_prefix(const Address& address);

}  // namespace gmgate
