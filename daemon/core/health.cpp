#include "daemon/core/health.h"

namespace gmgate::daemon {

bool Health::is_down(const Endpoint& element) const {
    const auto at = down_until_.find(element);
    return at != down_until_.end() && at->second > clock_->now();
}

bool Health::failed(const Endpoint& element) {
    const TimePoint now = clock_->now();
    if (const auto at = down_until_.find(element); at != down_until_.end()) {
        at->second = now + rest_;
        return false;
    }
    if (down_until_.size() >= limit_)
        std::erase_if(down_until_, [now](const auto& entry) { return entry.second <= now; });
    if (down_until_.size() >= limit_) return false;
    down_until_.emplace(element, now + rest_);
    return true;
}

bool Health::silent(const Endpoint& element, TimePoint since) {
    const auto at = answered_at_.find(element);
    return (at == answered_at_.end() || at->second < since) && failed(element);
}

bool Health::answered(const Endpoint& element) {
    const TimePoint now = clock_->now();
    if (const auto at = answered_at_.find(element); at != answered_at_.end()) {
        at->second = now;
    } else {
        if (answered_at_.size() >= limit_)
            std::erase_if(answered_at_, [&](const auto& entry) { return entry.second + rest_ <= now; });
        if (answered_at_.size() < limit_) answered_at_.emplace(element, now);
    }
    return down_until_.erase(element) != 0;
}

}  // namespace gmgate::daemon
