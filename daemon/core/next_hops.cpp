#include "daemon/core/next_hops.h"

#include <algorithm>
#include <utility>

namespace gmgate::daemon {

namespace {

bool is_same_place(const Target& a, const Target& b) { return a.endpoint == b.endpoint && a.transport == b.transport; }

/// RFC 2782: a running sum of weights, a number up to the whole sum, the first whose sum reaches it. Weight 0 stands in
/// front, so that it has a very small chance.
void draw_by_weight(std::vector<Target>::iterator begin, std::vector<Target>::iterator end, const Draw& draw) {
    std::stable_partition(begin, end, [](const Target& t) { return t.weight == 0; });
    for (; begin != end; ++begin) {
        std::uint64_t sum = 0;
        for (auto at = begin; at != end; ++at) sum += at->weight;
        const std::uint64_t drawn = draw(sum);
        std::uint64_t running = 0;
        auto chosen = begin;
        for (auto at = begin; at != end; ++at) {
            running += at->weight;
            chosen = at;
            if (running >= drawn) break;
        }
        std::rotate(begin, chosen, chosen + 1);
    }
}

}  // namespace

std::vector<Target> order_targets(std::vector<Target> targets, const IsDown& is_down, const Draw& draw) {
    if (targets.size() <= 1) return targets;
    std::vector<Target> unique;
    for (Target& target : targets)
        if (std::ranges::none_of(unique, [&](const Target& other) { return is_same_place(other, target); }))
            unique.push_back(std::move(target));
    std::ranges::stable_sort(unique, {}, &Target::priority);
    for (auto begin = unique.begin(); begin != unique.end();) {
        const auto end =
            std::find_if(begin, unique.end(), [&](const Target& t) { return t.priority != begin->priority; });
        draw_by_weight(begin, end, draw);
        begin = end;
    }
    std::ranges::stable_partition(unique, [&](const Target& t) { return !is_down(t); });
    return unique;
}

}  // namespace gmgate::daemon
