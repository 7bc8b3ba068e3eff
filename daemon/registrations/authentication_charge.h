// What a REGISTER in clear was charged: kept with its challenge, and given back once when that becomes a registration.
#pragma once

#include <cstdint>

#include "base/endpoint.h"

namespace gmgate::daemon {

/// Made by AuthenticationBudget::take() and meant for its give_back() alone: which of its buckets were filled.
struct AuthenticationCharge {
    Address source;           ///< a prefix of it, as limits per source count
    std::uint64_t name = 0;   ///< a keyed hash of the private identity
    std::uint64_t share = 0;  ///< of the source and the private identity
    bool is_known = false;    ///< as all three of the asker
    bool is_at_home = false;
    bool is_emergency = false;
};

}  // namespace gmgate::daemon
