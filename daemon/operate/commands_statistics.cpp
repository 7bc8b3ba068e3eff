// sa-stats: agreements, counted; and how many registrations there are, were and ever were.
#include "daemon/operate/operations.h"

namespace gmgate::daemon {
namespace {

nlohmann::json tally_json(const Tally& tally) {
    return {{"period", tally.period}, {"lifetime", tally.lifetime}, {"most_in_a_period", tally.most}};
}

}  // namespace

void Operations::add_statistics_commands() {
    server_.add("sa-stats", {Rights::read, "agreements on ipsec-3gpp: attempts, successes and failures by reason",
                             [this](const Json&, ControlClient&) -> Task<Result<Json>> { co_return sa_stats(); }});
}

nlohmann::json Operations::sa_stats() {
    statistics_.look(p_.table.registration_count());
    auto interfaces = Json::array();
    for (const auto& [realm, tally] : statistics_.by_realm()) {
        auto reasons = Json::array();
        for (const auto& [reason, count] : tally.reasons) {
            auto one = tally_json(count);
            one["reason"] = reason;
            reasons.push_back(std::move(one));
        }
        interfaces.push_back({{"realm", realm},
                              {"attempts", tally_json(tally.attempts)},
                              {"successes", tally_json(tally.successes)},
                              {"failures", tally_json(tally.failures)},
                              {"reasons", std::move(reasons)}});
    }
    return {{"period_seconds", statistics_.in_period().count()}, {"interfaces", std::move(interfaces)}};
}

nlohmann::json Operations::registration_numbers() {
    const auto active = p_.table.registration_count();
    statistics_.look(active);
    return {{"period_seconds", statistics_.in_period().count()},
            {"active",
             {{"now", active},
              {"period_high", statistics_.most_active_in_period()},
              {"lifetime_high", statistics_.most_active()},
              {"limit", p_.config.limits.registrations}}},
            {"registered", tally_json(statistics_.registered())},
            {"refreshed", tally_json(statistics_.refreshed())},
            {"challenged", tally_json(statistics_.challenged())},
            {"refused", tally_json(statistics_.refused())}};
}

// Whose interface it was is told by the gateway's end of the set.
void Operations::unanswered(SetNumber set, const xfrm::SetParameters& parameters) {
    const auto* access = p_.accesses.find({parameters.gateway, parameters.port_ps});
    if (access) statistics_.unanswered(set, access->interface->realm_id);
}

}  // namespace gmgate::daemon
