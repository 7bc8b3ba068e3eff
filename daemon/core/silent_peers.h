// Who did not answer our SYN lately: a connection into the void costs its time-out once, not for each request.
#pragma once

#include <cstddef>
#include <map>
#include <utility>

#include "base/clock.h"
#include "base/endpoint.h"

namespace gmgate::daemon {

/// Between two ends, so that a phone's new ports are tried anew. Bounded: beyond `limit` pairs no new one is
/// remembered.
class SilentPeers {
public:
    using Ends = std::pair<Endpoint, Endpoint>;  ///< ours (port 0: any) and the peer's
    explicit SilentPeers(const Clock& clock, std::size_t limit = 4096) : clock_(&clock), limit_(limit) {}

    /// Whether to connect at all: false while its silence is fresh, and while somebody else is trying again.
    bool may_try(const Ends& ends);
    /// Nothing came back within the time-out.
    void silent(const Ends& ends);
    /// It answered, or refused: it is there.
    void heard(const Ends& ends) { peers_.erase(ends); }
    std::size_t size() const { return peers_.size(); }

private:
    struct Silence {
        TimePoint until;
        seconds rest;  ///< doubled each time that it is silent again
    };
    const Clock* clock_;
    std::size_t limit_;
    std::map<Ends, Silence> peers_;
};

}  // namespace gmgate::daemon
