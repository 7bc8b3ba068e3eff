// What waits, by the source that it came from: who gives way when there is room for no more.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "base/source.h"

namespace gmgate::daemon {

/// Values in the order in which they came, of each source prefix (IPv4 address, IPv6 /64). Nothing here takes longer
/// than the logarithm of how many there are.
template <class Value>
class BySource {
public:
    using Queue = std::map<std::uint64_t, Value>;  ///< oldest first

    /// The number by which it is removed.
    std::uint64_t add(const Address& address, Value value) {
        const auto source = source_prefix(address);
        auto& queue = queues_[source];
        unrank(source, queue);
        queue.emplace(++last_, std::move(value));
        rank(source, queue);
        return last_;
    }
    void remove(const Address& address, std::uint64_t number) {
        const auto at = queues_.find(source_prefix(address));
        if (at == queues_.end()) return;
        unrank(at->first, at->second);
        at->second.erase(number);
        if (at->second.empty()) queues_.erase(at);
        else rank(at->first, at->second);
    }
    /// Of this address's source; null: nothing.
    const Queue* find(const Address& address) const {
        const auto at = queues_.find(source_prefix(address));
        return at == queues_.end() ? nullptr : &at->second;
    }
    /// From the source that has most; of those that have as many, the one first that has waited longest. Ends when `f`
    /// returns false.
    template <class F>
    void for_each_from_fullest(F f) const {
        for (const auto& place : ranked_)
            if (!f(queues_.at(std::get<Address>(place)))) return;
    }

private:
    using Place = std::tuple<std::ptrdiff_t, std::uint64_t, Address>;  ///< minus how many, the oldest, whose
    static Place place_of(const Address& source, const Queue& queue) {
        return {-static_cast<std::ptrdiff_t>(queue.size()), queue.begin()->first, source};
    }
    void rank(const Address& source, const Queue& queue) { ranked_.insert(place_of(source, queue)); }
    void unrank(const Address& source, const Queue& queue) {
        if (!queue.empty()) ranked_.erase(place_of(source, queue));
    }

    std::unordered_map<Address, Queue> queues_;
    std::set<Place> ranked_;
    std::uint64_t last_ = 0;
};

}  // namespace gmgate::daemon
