// When each of many things is to be looked at again.
#pragma once

#include <optional>
#include <set>
#include <unordered_map>
#include <utility>

#include "base/clock.h"

namespace gmgate::daemon {

/// One entry for each key, however often it is put: what is put off with every refresh does not pile up.
template <class Key>
class DueTimes {
public:
    /// Of two times for one key the earlier stays: whoever looks sees by itself when that was too early.
    void put(const Key& key, TimePoint when) {
        const auto [at, is_new] = times_.emplace(key, when);
        if (!is_new && at->second <= when) return;
        if (!is_new) order_.erase({at->second, key});
        at->second = when;
        order_.emplace(when, key);
    }
    void erase(const Key& key) {
        const auto at = times_.find(key);
        if (at == times_.end()) return;
        order_.erase({at->second, key});
        times_.erase(at);
    }
    /// The first that is due, taken out; nullopt: none.
    std::optional<Key> take(TimePoint now) {
        if (order_.empty() || order_.begin()->first > now) return std::nullopt;
        std::optional<Key> key(order_.begin()->second);
        erase(*key);
        return key;
    }
    std::size_t size() const { return times_.size(); }

private:
    std::unordered_map<Key, TimePoint> times_;
    std::set<std::pair<TimePoint, Key>> order_;
};

}  // namespace gmgate::daemon
