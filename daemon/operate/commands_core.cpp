// core, core-disable, core-enable: the elements of the core as an operator sees them.
#include "daemon/operate/operations.h"

namespace gmgate::daemon {
namespace {

std::string state_of(const CoreLink::HopReport& report, const HopHistory::Entry* known) {
    if (report.is_down) return "down";
    if (report.is_busy) return "busy";
    return known ? "up" : "unknown";
}

}  // namespace

void Operations::add_core_commands() {
    server_.add("core", {Rights::read, "the next hops: up or down since when and why, and how fast they answer",
                         [this](const Json&, ControlClient&) { return core(); }});
    server_.add("core-disable", {Rights::admin, "takes a next hop out of use for what is new",
                                 [this](const Json& arguments, ControlClient&) { return core_disable(arguments); }});
    server_.add("core-enable", {Rights::admin, "takes a disabled next hop into use again",
                                [this](const Json& arguments, ControlClient&) -> Task<Result<Json>> {
                                    co_return core_enable(arguments);
                                }});
}

Task<Result<nlohmann::json>> Operations::core() {
    auto hops = Json::array();
    const auto reports = co_await p_.core.report();
    for (const auto& report : reports) {
        const auto* known = report.target ? p_.core.hops().find(report.target->endpoint) : nullptr;
        Json hop{{"hop", report.hop},
                 {"emergency", report.is_emergency},
                 {"state", state_of(report, known)},
                 {"disabled", report.is_disabled},
                 {"reason", report.reason}};
        if (report.target) {
            hop["address"] = report.target->endpoint.to_string();
            hop["transport"] = sip::to_string(to_sip(report.target->transport));
            hop["priority"] = report.target->priority >> 16;
            hop["weight"] = report.target->weight;
        }
        if (known) {
            hop["since"] = utc_text(known->since);
            hop["for"] = std::chrono::duration_cast<std::chrono::seconds>(p_.clock.wall() - known->since).count();
            if (known->round_trip) hop["round_trip_ms"] = static_cast<double>(known->round_trip->count()) / 1000.0;
            const auto answers = known->responses.count();
            hop["answers"] = answers;
            if (answers != 0) hop["mean_answer_ms"] = known->responses.sum() / static_cast<double>(answers) * 1000.0;
        }
        hops.push_back(std::move(hop));
    }
    co_return Json{{"hops", std::move(hops)}, {"ping_interval", p_.config.core.ping_interval.count()}};
}

Task<Result<nlohmann::json>> Operations::core_disable(Json arguments) {
    const auto hop = text_argument(arguments, "hop");
    if (!hop) co_return std::unexpected(hop.error());
    std::string named = *hop;
    if (const auto done = co_await p_.core.disable(std::move(named)); !done) co_return std::unexpected(done.error());
    co_return Json{{"hop", *hop}, {"disabled", true}};
}

Result<nlohmann::json> Operations::core_enable(const Json& arguments) {
    const auto hop = text_argument(arguments, "hop");
    if (!hop) return std::unexpected(hop.error());
    if (const auto done = p_.core.enable(*hop); !done) return std::unexpected(done.error());
    return Json{{"hop", *hop}, {"disabled", false}};
}

}  // namespace gmgate::daemon
