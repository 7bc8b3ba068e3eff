// What an operator sees of the core and may change: declared in core_link.h.
#include <algorithm>
#include <utility>

#include "base/log.h"
#include "daemon/core/core_link.h"

namespace gmgate::daemon {
namespace {

// Under which it is disabled: an address with its port, or a name with all that it means and without a port.
std::string key_of(const std::string& hop) {
    if (const auto endpoint = Endpoint::parse(hop)) return endpoint->to_string();
    return hop.substr(0, hop.rfind(':'));
}

}  // namespace

Task<std::vector<CoreLink::HopReport>> CoreLink::report() {
    std::vector<HopReport> all;
    // Copies: a reload may replace the lists while a name is looked up.
    std::vector<std::pair<NextHop, bool>> hops;
    for (const NextHop& hop : core_.next_hops) hops.emplace_back(hop, false);
    for (const NextHop& hop : core_.emergency_next_hops) hops.emplace_back(hop, true);
    for (const auto& [hop, is_emergency] : hops) {
        HopReport report;
        report.hop = hop.to_string();
        report.is_emergency = is_emergency;
        NextHop asked = hop;
        Result<std::vector<Target>> found = co_await targets_of(std::move(asked));
        if (!found) {
            report.reason = found.error().text;
            report.is_down = true;
            all.push_back(std::move(report));
            continue;
        }
        for (Target& target : *found) {
            HopReport one = report;
            one.is_down = health_.is_down(target.endpoint);
            one.is_busy = busy_.is_resting(target.endpoint);
            one.is_disabled = hops_.is_disabled(target);
            if (const auto* known = hops_.find(target.endpoint)) {
                one.reason = known->reason;
                one.is_down = one.is_down || !known->is_up;  // it may be tried again, and has not answered yet
            }
            one.target = std::move(target);
            all.push_back(std::move(one));
        }
    }
    co_return all;
}

Task<Result<void>> CoreLink::disable(std::string hop) {
    const auto key = key_of(hop);
    const auto all = co_await report();
    const auto is_meant = [&](const HopReport& one) {
        return one.target && (one.target->endpoint.to_string() == key || one.target->host == key);
    };
    if (std::ranges::none_of(all, is_meant))
        co_return failure(Reaction::reject, hop + " is none of the next hops; gmctl core lists them");
    // An emergency list with nobody left would leave emergency calls without a core, so each list counts by itself.
    for (const bool is_emergency : {false, true}) {
        const auto is_left = [&](const HopReport& one) {
            return one.is_emergency == is_emergency && one.target && !one.is_disabled && !is_meant(one);
        };
        const auto is_touched = [&](const HopReport& one) { return one.is_emergency == is_emergency && is_meant(one); };
        if (std::ranges::any_of(all, is_touched) && std::ranges::none_of(all, is_left))
            co_return failure(Reaction::reject,
                              hop +
                                  " is the last next hop in use: enable or configure another one first (to refuse "
                                  "new registrations: gmctl drain)");
    }
    hops_.disable(key);
    log::notice(
        "next-hop-disabled",
        {{"next-hop", hop}, {"why", "asked for at the control socket; until it is enabled or gmgated is restarted"}});
    co_return Result<void>{};
}

Result<void> CoreLink::enable(const std::string& hop) {
    if (!hops_.enable(key_of(hop)))
        return failure(Reaction::reject, hop + " is not disabled; gmctl core lists what is");
    log::notice("next-hop-enabled", {{"next-hop", hop}});
    return {};
}

}  // namespace gmgate::daemon
