// Who may talk to [core] listen: a request that comes there is the core's word, with any identity in it.
#pragma once

#include <cstdint>

#include "base/clock.h"
#include "base/endpoint.h"
#include "daemon/config/config.h"
#include "daemon/core/core_link.h"
#include "daemon/observe/counters.h"

namespace gmgate::daemon {

/// Next hops, what they resolve to, and [core] peers. Nothing of anybody else is read or answered: not a keep-alive.
class CoreDoor {
public:
    /// All outlive it; `core` may change at any time.
    CoreDoor(const Core& core, const CoreLink& link, Counters& counters, const Clock& clock)
        : core_(core), link_(link), counters_(counters), clock_(clock) {}

    /// Whether that peer may send to that address of ours. A refusal is counted, and logged once a second at most.
    bool admits(const Endpoint& remote, const Endpoint& local);

private:
    const Core& core_;
    const CoreLink& link_;
    Counters& counters_;
    const Clock& clock_;
    TimePoint quiet_until_{};
    std::uint64_t unsaid_ = 0;  ///< refused since the last line
};

}  // namespace gmgate::daemon
