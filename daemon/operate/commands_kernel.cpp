// kernel: guard policies, SAs, and the kernel's own counters with what each one means. rates: what `top` looks at.
#include <algorithm>

#include "daemon/observe/kernel_statistics.h"
#include "daemon/operate/operations.h"

namespace gmgate::daemon {
namespace {

nlohmann::json statistics_json(const std::vector<KernelStatistic>& statistics) {
    auto list = nlohmann::json::array();
    for (const auto& one : statistics) list.push_back({{"name", one.name}, {"value", one.value}, {"means", one.means}});
    return list;
}

struct AuditSums {
    std::uint64_t sas = 0, packets = 0, failures = 0, replays = 0, unused = 0;
    void add(const xfrm::SaReport& sa) {
        ++sas;
        packets += sa.packets;
        failures += sa.integrity_failures;
        replays += sa.replay_drops + sa.replay_window_drops;
        unused += sa.packets == 0;
    }
};

}  // namespace

void Operations::add_kernel_commands() {
    server_.add("kernel", {Rights::read, "guard policies, SAs and the kernel's counters",
                           [this](const Json& arguments, ControlClient&) { return kernel(arguments); }});
    server_.add("rates", {Rights::read, "counters and gauges at this moment, for live rates",
                          [this](const Json&, ControlClient&) -> Task<Result<Json>> { co_return rates(); }});
}

Task<Result<nlohmann::json>> Operations::kernel(const Json& arguments) {
    const auto audit = flag_argument(arguments, "audit");
    if (!audit) co_return std::unexpected(audit.error());
    std::string not_told;  // why the kernel's own word is missing: then that of its events counts
    auto guards = Json::array();
    const auto requests = p_.accesses.guard_requests();
    for (const auto& request : requests) {
        auto wanted = request;
        const auto standing = co_await p_.kernel.report_guards(std::move(wanted));
        if (!standing) not_told = standing.error().text;
        for (const auto& policy : xfrm::guard_policies(request))
            guards.push_back({{"ports", std::max<int>(policy.nat_block, 1)},
                              {"direction", policy.direction == xfrm::Direction::in ? "in" : "out"},
                              {"address", policy.gateway.address.to_string()},
                              {"port", policy.gateway.port.value},
                              {"in_kernel", standing ? std::ranges::find(*standing, policy) != standing->end()
                                                     : p_.kernel_watch.guards_stand()}});
    }
    const auto& counters = p_.kernel.counters();
    const auto engine = p_.kernel.status();
    Json result{{"guards", std::move(guards)},
                {"guards_stand", p_.kernel_watch.guards_stand()},
                {"guards_not_told", not_told},
                {"reqid", p_.config.xfrm.reqid},
                {"sas_expected", p_.table.set_count() * 4},
                {"sets_waiting_for_deletion", p_.sets.leftovers()},
                {"engine",
                 {{"name", engine.engine},
                  {"up", engine.is_up},
                  {"pid", engine.pid},
                  {"starts", engine.starts},
                  {"malformed", engine.malformed},
                  {"forbidden", engine.forbidden},
                  {"flooded", engine.flooded}}},
                {"netlink",
                 {{"requests", counters.requests},
                  {"system_calls", counters.system_calls},
                  {"sets_installed", counters.sets_installed},
                  {"sets_refused", counters.sets_refused},
                  {"sets_removed", counters.sets_removed},
                  {"rollbacks", counters.rollbacks}}},
                {"xfrm_stat", statistics_json(xfrm_statistics())},
                {"tls_stat", statistics_json(tls_statistics())}};
    if (*audit) {  // lists every SA: not for free with many phones
        AuditSums sums;
        std::function<void(xfrm::SaReport)> each = [&sums](xfrm::SaReport sa) { sums.add(sa); };
        std::function<void()> again = [&sums] { sums = {}; };
        const auto told = co_await p_.kernel.dump_each(std::move(each), std::move(again));
        if (!told) co_return std::unexpected(told.error());
        result["audit"] = {{"sas", sums.sas},
                           {"packets", sums.packets},
                           {"integrity_failures", sums.failures},
                           {"replays", sums.replays},
                           {"without_a_packet", sums.unused}};
    }
    co_return result;
}

nlohmann::json Operations::rates() const {
    auto counters = Json::object();
    for (std::size_t i = 0; i < kCounterInfo.size(); ++i)
        counters[std::string(kCounterInfo[i].name)] = p_.counters.at(i);
    const auto& transport = p_.transports.counters();
    for (const auto& one : xfrm_statistics()) counters[one.name] = one.value;
    counters["datagrams_in"] = transport.datagrams_in;
    counters["datagrams_out"] = transport.datagrams_out;
    counters["messages_in"] = transport.messages_in;
    counters["responses_wrong_door"] = p_.transactions.counters().responses_wrong_door;
    counters["cancels_unmatched"] = p_.transactions.counters().cancels_unmatched;
    return Json{{"time", utc_text(p_.clock.wall())},
                {"registrations", p_.table.registration_count()},
                {"challenges", p_.table.challenge_count()},
                {"sets", p_.table.set_count()},
                {"connections", p_.transports.connection_count()},
                {"transactions", p_.transactions.server_count()},
                {"counters", std::move(counters)}};
}

}  // namespace gmgate::daemon
