// Which element of the core a request is sent to, and which one after that: pure selection (RFC 2782, RFC 3263 §4.3).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "daemon/config/config.h"

namespace gmgate::daemon {

/// One place that requests can be sent to: a configured address, or what a name was resolved to.
struct Target {
    Endpoint endpoint;
    CoreTransport transport = CoreTransport::udp;
    std::uint32_t priority = 0;  ///< lower first; the configured priority counts before that of SRV
    std::uint32_t weight = 1;    ///< share among targets of one priority; 0: only when no other is drawn (RFC 2782)
    std::string tls_name{};      ///< tls: of its certificate; empty: [core] tls-name
    std::string host{};          ///< the name it was found under; empty for a configured address
    friend bool operator==(const Target&, const Target&) = default;
};

/// Gives a number from 0 to `most`, both included.
using Draw = std::function<std::uint64_t(std::uint64_t most)>;
/// True for a target that is known not to answer.
using IsDown = std::function<bool(const Target&)>;

/// All targets in the order to try them: by priority, drawn by weight within one (RFC 2782), those that are down behind
/// all others, for a dead target is still better than none. Duplicates (same endpoint and transport) are dropped.
std::vector<Target> order_targets(std::vector<Target> targets, const IsDown& is_down, const Draw& draw);

}  // namespace gmgate::daemon
