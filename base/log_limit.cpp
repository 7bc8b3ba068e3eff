#include "base/log_limit.h"

#include <algorithm>
#include <utility>

namespace gmgate::log {

bool LineLimit::may_write(std::string_view id, TimePoint now) {
    constexpr std::chrono::milliseconds kOne{1000 / kPerSecond};
    auto known = buckets_.find(id);
    if (known == buckets_.end()) known = buckets_.emplace(id, Bucket{}).first;
    Bucket& bucket = known->second;
    const TimePoint full_at = std::max(bucket.full_at, now) + kOne;
    if (full_at > now + kOne * kBurst) {
        if (held_ == 0) told_ = now;
        ++bucket.held;
        ++held_;
        return false;
    }
    bucket.full_at = full_at;
    return true;
}

std::vector<LineLimit::Held> LineLimit::held(TimePoint now) {
    std::vector<Held> all;
    if (held_ == 0 || now - told_ < kTellAfter) return all;
    for (auto& [id, bucket] : buckets_)
        if (bucket.held != 0) all.push_back({id, std::exchange(bucket.held, 0)});
    held_ = 0;
    return all;
}

}  // namespace gmgate::log
