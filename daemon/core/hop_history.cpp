#include "daemon/core/hop_history.h"

namespace gmgate::daemon {

HopHistory::Entry* HopHistory::at(const Endpoint& element) {
    if (const auto known = entries_.find(element); known != entries_.end()) return &known->second;
    if (entries_.size() >= limit_) return nullptr;
    Entry entry;
    entry.since = clock_->wall();
    return &entries_.emplace(element, std::move(entry)).first->second;
}

const HopHistory::Entry* HopHistory::find(const Endpoint& element) const {
    const auto known = entries_.find(element);
    return known == entries_.end() ? nullptr : &known->second;
}

void HopHistory::went_down(const Endpoint& element, std::string_view why) {
    auto* entry = at(element);
    if (!entry) return;
    if (entry->is_up) entry->since = clock_->wall();
    entry->is_up = false;
    entry->reason = why;
}

void HopHistory::came_up(const Endpoint& element) {
    auto* entry = at(element);
    if (!entry || entry->is_up) return;
    entry->is_up = true;
    entry->since = clock_->wall();
}

void HopHistory::answered(const Endpoint& element, std::chrono::nanoseconds took) {
    came_up(element);
    if (auto* entry = at(element)) entry->responses.add(took);
}

void HopHistory::answered_ping(const Endpoint& element, std::chrono::nanoseconds took) {
    came_up(element);
    if (auto* entry = at(element)) entry->round_trip = std::chrono::duration_cast<std::chrono::microseconds>(took);
}

}  // namespace gmgate::daemon
