#include "daemon/tls/handshakes.h"

#include <algorithm>

#include "base/source.h"

namespace gmgate::daemon {

std::optional<Handshakes::Place> Handshakes::begin(const Address& remote, int socket, bool is_known) {
    const Address source = source_prefix(remote);
    const auto held = of_.find(source);
    const bool of_source = held != of_.end() && held->second >= limits_.per_source;
    const bool is_full = count_ >= limits_.total;
    limit_met_ = of_source ? "tls-handshakes-per-address" : is_full ? "tls-handshakes" : "";
    if (of_source || is_full) {
        auto oldest = of_source ? oldest_of(source, false) : oldest_of_most(false);
        if (oldest == all_.end() && is_known) oldest = of_source ? oldest_of(source, true) : oldest_of_most(true);
        // Those that gave way end in later turns of the loop: they are not let grow without bound.
        if (oldest == all_.end() || all_.size() >= 2 * limits_.total) return std::nullopt;
        leave(*oldest);
        oldest->gave_way = true;
        end_(oldest->socket);
    }
    ++count_;
    ++of_[source];
    return all_.insert(all_.end(), {.socket = socket, .source = source, .is_known = is_known});
}

void Handshakes::end(Place place) {
    if (!place->gave_way) leave(*place);
    all_.erase(place);
}

Handshakes::Place Handshakes::oldest_of(const Address& source, bool also_known) {
    return std::ranges::find_if(
        all_, [&](const One& one) { return one.source == source && !one.gave_way && (also_known || !one.is_known); });
}

Handshakes::Place Handshakes::oldest_of_most(bool also_known) {
    auto found = all_.end();
    std::size_t most = 0;
    for (auto at = all_.begin(); at != all_.end(); ++at) {
        if (at->gave_way || (at->is_known && !also_known)) continue;
        const std::size_t held = of_.at(at->source);
        if (held <= most) continue;
        most = held;
        found = at;
    }
    return found;
}

void Handshakes::leave(One& one) {
    --count_;
    if (const auto held = of_.find(one.source); --held->second == 0) of_.erase(held);
}

}  // namespace gmgate::daemon
