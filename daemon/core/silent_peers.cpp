#include "daemon/core/silent_peers.h"

#include <algorithm>

namespace gmgate::daemon {
namespace {

constexpr seconds kFirstRest{30}, kLongestRest{60};
constexpr seconds kTry{5};  // longer than a connection attempt

}  // namespace

bool SilentPeers::may_try(const Ends& ends) {
    const auto at = peers_.find(ends);
    if (at == peers_.end()) return true;
    if (clock_->now() < at->second.until) return false;
    at->second.until = clock_->now() + kTry;
    return true;
}

void SilentPeers::silent(const Ends& ends) {
    const TimePoint now = clock_->now();
    if (const auto at = peers_.find(ends); at != peers_.end()) {
        at->second.rest = std::min(2 * at->second.rest, kLongestRest);
        at->second.until = now + at->second.rest;
        return;
    }
    if (peers_.size() >= limit_) std::erase_if(peers_, [now](const auto& entry) { return entry.second.until <= now; });
    if (peers_.size() < limit_) peers_.emplace(ends, Silence{now + kFirstRest, kFirstRest});
}

}  // namespace gmgate::daemon
