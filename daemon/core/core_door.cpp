#include "daemon/core/core_door.h"

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace gmgate::daemon {

bool CoreDoor::admits(const Endpoint& remote, const Endpoint& local) {
    if (link_.is_core_address(remote.address)) return true;
    const auto holds = [&](const AddressRange& range) { return range.contains(remote.address); };
    if (std::ranges::any_of(core_.peers, holds)) return true;
    counters_.add(Counter::core_stranger);
    ++unsaid_;
    const auto now = clock_.now();
    if (now < quiet_until_) return false;
    quiet_until_ = now + seconds{1};
    log::notice("core-stranger",
                {{"from", remote.to_string()},
                 {"to", local.to_string()},
                 {"count", std::exchange(unsaid_, 0)},
                 {"why",
                  "it is no next hop and none of [core] peers: nothing of it is read. If it is an element of "
                  "the core, name it there"}});
    return false;
}

}  // namespace gmgate::daemon
