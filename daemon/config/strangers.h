// What strangers may cost: settings of [limits] and [core] that concern nobody else.
#pragma once

#include <cstddef>

#include "base/address_range.h"

namespace gmgate::daemon {

/// REGISTERs in clear that are passed to the core in a second, each at the cost of an authentication vector. Some
/// seconds' worth may come at once; 0: no bound.
struct AuthenticationLimits {
    std::size_t in_all = 1000;    ///< `authentications`; those from known addresses pass and are not counted
    std::size_t per_source = 50;  ///< `authentications-per-source`: of one IPv4 address or IPv6 /64
    std::size_t per_impi = 1;     ///< `authentications-per-impi`: of one private identity from one source; eight times
                                  ///< it from all
};

}  // namespace gmgate::daemon
