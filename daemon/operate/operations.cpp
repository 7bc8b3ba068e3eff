#include "daemon/operate/operations.h"

#include <grp.h>
#include <unistd.h>

#include <fmt/chrono.h>

#include "base/log.h"

namespace gmgate::daemon {

namespace {

/// `control-group` as the file says it, "" for nobody. Without a word the package's group gmgate, when there is one
/// that the socket can be given to.
std::string control_group_of(const Config& config) {
    if (config.settings.contains("control-group")) return config.control_group;
    const auto* entry = getgrnam("gmgate");
    return entry && (geteuid() == 0 || getegid() == entry->gr_gid) ? "gmgate" : "";
}

}  // namespace

Operations::Operations(OperateParts parts)
    : p_(std::move(parts)),
      server_(p_.executor, {.path = p_.config.control_socket, .group = control_group_of(p_.config)}),
      started_(p_.clock.wall()),
      statistics_(p_.clock) {
    p_.operating.log_level = p_.config.log_level;
    add_state_commands();
    add_admin_commands();
    add_kernel_commands();
    add_why_command();
    add_trace_command();
    add_statistics_commands();
    add_core_commands();
    counting_ = p_.trace.on_record(
        [this](const DecisionRecord& record) { statistics_.record(record, p_.table.registration_count()); });
}

Result<void> Operations::open(bool replace) { return server_.open(replace); }

void Operations::set_log_level(const std::string& level) {
    if (const auto known = log::parse_level(level)) {
        log::set_level(*known);
        p_.operating.log_level = level;
    }
}

std::int64_t Operations::seconds_left(TimePoint until) const {
    return std::chrono::duration_cast<std::chrono::seconds>(until - p_.clock.now()).count();
}

std::string utc_text(std::chrono::system_clock::time_point time) {
    const auto whole = std::chrono::floor<std::chrono::seconds>(time);
    const auto milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(time - whole).count();
    return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z", fmt::gmtime(std::chrono::system_clock::to_time_t(whole)),
                       milliseconds);
}

bool names(const Registration& registration, std::string_view of) {
    if (registration.key.impi.value == of) return true;
    for (const auto& impu : registration.impus)
        if (impu.value == of) return true;
    const auto is_at = [&](const Endpoint& end) { return end.address.to_string() == of || end.to_string() == of; };
    if (registration.tls && is_at(registration.tls->flow.remote)) return true;
    for (const auto& set : registration.sets)
        if (is_at(set->ue_client()) || is_at(set->ue_server())) return true;
    return false;
}

void Operations::add_cluster(std::function<nlohmann::json()> status) {
    server_.add("cluster",
                {Rights::read, "who serves, since when, and how the shared store does",
                 [told = std::move(status)](const Json&, ControlClient&) -> Task<Result<Json>> { co_return told(); }});
}

}  // namespace gmgate::daemon
