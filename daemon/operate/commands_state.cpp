// status, registrations (and follow), show.
#include <algorithm>
#include <deque>

#include <fmt/format.h>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>

#include "daemon/agreement/mechanism.h"
#include "daemon/config/lab.h"
#include "daemon/operate/operations.h"

namespace gmgate::daemon {
namespace {

constexpr std::int64_t kPage = 300;  // registrations in one answer: to write it holds the loop up for some milliseconds
/// What requests and answers mean (docs/control-protocol.md): grows when a field changes its meaning or goes.
constexpr int kProtocol = 1;
constexpr std::size_t kFollowBacklog =
    10000;  // events that a follower may lag behind before some are dropped and told as a number

std::string listed(const std::vector<Endpoint>& all) {
    std::string text;
    for (const Endpoint& one : all) text += (text.empty() ? "" : ", ") + one.to_string();
    return text;
}

nlohmann::json sa_json(const xfrm::SaReport& sa) {
    return {{"direction", sa.sa.direction == xfrm::Direction::in ? "in" : "out"},
            {"spi", sa.sa.id.spi.value},
            {"source", sa.sa.source.to_string()},
            {"destination", sa.sa.destination.to_string()},
            {"packets", sa.packets},
            {"bytes", sa.bytes},
            {"integrity_failures", sa.integrity_failures},
            {"replay_drops", sa.replay_drops},
            {"replay_window_drops", sa.replay_window_drops},
            {"hard_lifetime", sa.hard_lifetime.count()}};
}

}  // namespace

nlohmann::json record_json(const DecisionRecord& record) {
    auto checks = nlohmann::json::array();
    for (const auto& check : record.checks)
        checks.push_back({{"check", check.check}, {"passed", check.passed}, {"detail", check.detail}});
    return {{"time", utc_text(record.time)},
            {"impi", record.impi.value},
            {"ue", record.ue},
            {"realm", record.realm_id},
            {"over", record.over},
            {"offer", record.offer},
            {"policy", record.policy},
            {"choice", record.choice},
            {"rule", record.rule},
            {"checks", checks},
            {"integrity_protected", record.integrity_protected},
            {"core_status", record.core_status},
            {"security_associations", record.security_associations},
            {"answer", record.answer},
            {"why", record.why}};
}

void Operations::add_state_commands() {
    server_.add("status", {Rights::read, "what the gateway does at the moment",
                           [this](const Json&, ControlClient&) { return status(); }});
    server_.add("registrations", {Rights::read, "registered contacts, a page at a time",
                                  [this](const Json& arguments, ControlClient&) { return registrations(arguments); }});
    server_.add("follow", {Rights::read, "one event for each REGISTER as it is decided",
                           [this](const Json& arguments, ControlClient& client) { return follow(arguments, client); }});
    server_.add("show", {Rights::read, "everything about one IMPI, IMPU or address",
                         [this](const Json& arguments, ControlClient&) { return show(arguments); }});
}

// ------------------------------------------------------------------------------------------
// status

Task<Result<nlohmann::json>> Operations::status() const {
    const TableCounts counts = co_await p_.table.count();
    auto interfaces = Json::array();
    for (const auto& access : p_.accesses.all()) {
        const auto policy = Policy::of(*access.interface, access.profile);
        auto gets = Json::array();
        if (policy.tls && policy.tls_first) gets.push_back("tls");
        if (policy.ipsec) gets.push_back("ipsec-3gpp");
        if (policy.tls && !policy.tls_first) gets.push_back("tls");
        interfaces.push_back({{"realm", access.interface->realm_id},
                              {"address", access.address.to_string()},
                              {"sec_agree", access.interface->sec_agree_feature},
                              {"mechanisms", gets},
                              {"usable", !p_.table.is_suspended(access.address)}});
    }
    auto counters = Json::object();
    for (std::size_t i = 0; i < kCounterInfo.size(); ++i)
        counters[std::string(kCounterInfo[i].name)] = p_.counters.at(i);
    std::string next_hops;
    for (const auto& hop : p_.config.core.next_hops) next_hops += (next_hops.empty() ? "" : ", ") + hop.to_string();
    const auto& limits = p_.config.limits;
    const auto uptime = std::chrono::duration_cast<std::chrono::seconds>(p_.clock.wall() - started_).count();
    co_return Json{
        {"version", GMGATE_VERSION},
        {"protocol", kProtocol},
        {"state", p_.operating.draining ? "draining" : "serving"},
        {"started", utc_text(started_)},
        {"uptime", uptime},
        {"config", p_.config.path},
        {"log_level", p_.operating.log_level},
        {"core", {{"listen", listed(p_.config.core.listen)}, {"next_hop", next_hops}}},
        {"interfaces", interfaces},
        {"registrations",
         {{"ipsec_3gpp", counts.over_ipsec},
          {"tls", counts.over_tls},
          {"ending", counts.ended},
          {"limit", limits.registrations}}},
        {"challenges", {{"waiting", p_.table.challenge_count()}, {"limit", limits.challenges}}},
        {"sets", {{"temporary", counts.temporary}, {"established", counts.established}, {"old", counts.old_sets}}},
        {"connections",
         {{"open", p_.transports.connection_count()},
          {"limit", limits.connections},
          {"gave_way", p_.transports.counters().connections_gave_way},
          {"outlived", p_.transports.counters().connections_outlived}}},
        {"transactions",
         {{"server", p_.transactions.server_count()},
          {"client", p_.transactions.client_count()},
          {"limit", limits.transactions}}},
        {"keys_exported", lab_of(p_.config.settings).export_keys},
        {"guards_stand", p_.kernel_watch.guards_stand()},
        {"counters", counters}};
}

// ------------------------------------------------------------------------------------------
// registrations

nlohmann::json Operations::row_of(const Registration& registration) const {
    Json row{{"impi", registration.key.impi.value},
             {"instance", registration.key.instance},
             {"reg_id", registration.key.reg_id},
             {"impu", registration.impus.empty() ? "" : registration.impus.front().value},
             {"realm", registration.realm_id},
             {"transport", sip::to_string(registration.transport)},
             {"expires_in", seconds_left(registration.expires)},
             {"ended", registration.ended}};
    if (registration.tls) {
        row["mechanism"] = "tls";
        row["ue"] = registration.tls->flow.remote.to_string();
    } else if (const auto* set = registration.outbound()) {
        row["mechanism"] = "ipsec-3gpp";
        row["ue"] = set->ue_server().to_string();
        row["algorithms"] =
            fmt::format("{}/{}", to_string(set->parameters.algorithms.alg), to_string(set->parameters.algorithms.ealg));
    }
    row["sets"] = registration.sets.size();
    return row;
}

namespace {

/// What `registrations` was asked for; each that is empty takes everything.
struct RegistrationFilter {
    std::string any, realm, mechanism, algorithm, address, state;

    static Result<RegistrationFilter> from(const nlohmann::json& arguments) {
        RegistrationFilter filter;
        const std::pair<const char*, std::string*> all[] = {
            {"filter", &filter.any},          {"realm", &filter.realm},     {"mechanism", &filter.mechanism},
            {"algorithm", &filter.algorithm}, {"address", &filter.address}, {"state", &filter.state}};
        for (const auto& [name, value] : all) {
            auto text = text_argument(arguments, name);
            if (!text) return std::unexpected(text.error());
            *value = std::move(*text);
        }
        return filter;
    }
    bool matches(const Registration& registration) const {
        auto found =
            any.empty() || registration.key.impi.value.find(any) != std::string::npos || names(registration, any);
        for (const auto& impu : registration.impus) found = found || impu.value.find(any) != std::string::npos;
        if (!found || (!realm.empty() && registration.realm_id != realm)) return false;
        if (!mechanism.empty() && mechanism != (registration.tls ? "tls" : "ipsec-3gpp")) return false;
        if (!state.empty() && state != (registration.ended ? "ending" : "registered")) return false;
        if (!address.empty() && !is_at(registration)) return false;
        const auto* set = registration.outbound();
        const auto pair = set ? set->parameters.algorithms : AlgorithmPair{};
        return algorithm.empty() ||
               (set && (algorithm == to_string(pair.alg) || algorithm == to_string(pair.ealg) ||
                        algorithm == fmt::format("{}/{}", to_string(pair.alg), to_string(pair.ealg))));
    }

private:
    bool is_at(const Registration& registration) const {
        if (registration.tls && registration.tls->flow.remote.address.to_string() == address) return true;
        return std::ranges::any_of(registration.sets,
                                   [&](const auto& set) { return set->parameters.ue.to_string() == address; });
    }
};

}  // namespace

Task<Result<nlohmann::json>> Operations::registrations(Json arguments) {
    const auto filter = RegistrationFilter::from(arguments);
    const auto limit = number_argument(arguments, "limit", kPage, 1, kPage);
    if (!filter) co_return std::unexpected(filter.error());
    if (!limit) co_return std::unexpected(limit.error());
    const auto skip = number_argument(arguments, "skip", 0, 0, 1'000'000'000);  // of those that match
    if (!skip) co_return std::unexpected(skip.error());
    auto rows = Json::array();
    std::int64_t matches = 0;
    std::function<void(Registration&)> look = [&](Registration& registration) {
        if (filter->matches(registration) && ++matches > *skip && static_cast<std::int64_t>(rows.size()) < *limit)
            rows.push_back(row_of(registration));
    };
    co_await p_.table.walk(std::move(look));
    co_return Json{{"matches", matches},
                   {"total", p_.table.registration_count()},
                   {"numbers", registration_numbers()},
                   {"registrations", std::move(rows)}};
}

// Events are queued by the trace's handler and sent from here, so that a slow reader never holds up a REGISTER.
Task<Result<nlohmann::json>> Operations::follow(const Json& arguments, ControlClient& client) {
    const auto filter = text_argument(arguments, "filter");
    if (!filter) co_return std::unexpected(filter.error());
    std::deque<Json> waiting;
    std::uint64_t dropped = 0;
    asio::steady_timer wake(p_.executor);
    const auto subscription = p_.trace.on_record([&, wanted = *filter](const DecisionRecord& record) {
        if (!wanted.empty() && record.impi.value.find(wanted) == std::string::npos &&
            record.ue.find(wanted) == std::string::npos)
            return;
        if (waiting.size() >= kFollowBacklog) ++dropped;
        else waiting.push_back(record_json(record));
        wake.cancel();
    });
    while (!client.is_gone()) {
        while (!waiting.empty()) {
            if (!client.send_event(waiting.front())) co_return Json{{"dropped", dropped}};
            waiting.pop_front();
        }
        wake.expires_after(std::chrono::seconds{1});  // how late an ended client is noticed
        asio::error_code ignored;
        co_await wake.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
    }
    co_return Json{{"dropped", dropped}};
}

// ------------------------------------------------------------------------------------------
// show

Task<nlohmann::json> Operations::set_details(SetNumber number) {
    const auto owner = p_.table.find_set(number);
    if (!owner.set) co_return Json();
    const auto& set = *owner.set;
    const auto parameters = set.parameters;
    Json details{{"set", number.value},
                 {"state", to_string(set.state)},
                 {"in_use", set.in_use},
                 {"expires_in", seconds_left(set.expires)},
                 {"alg", to_string(parameters.algorithms.alg)},
                 {"ealg", to_string(parameters.algorithms.ealg)},
                 {"spi_uc", parameters.spi_uc.value},
                 {"spi_us", parameters.spi_us.value},
                 {"spi_pc", parameters.spi_pc.value},
                 {"spi_ps", parameters.spi_ps.value},
                 {"port_uc", parameters.port_uc.value},
                 {"port_us", parameters.port_us.value},
                 {"port_pc", parameters.port_pc.value},
                 {"port_ps", parameters.port_ps.value},
                 {"ue", parameters.ue.to_string()},
                 {"gateway", parameters.gateway.to_string()},
                 {"mod", set.is_behind_nat() ? "UDP-enc-tun" : "trans"},
                 {"security_server", set.security_server.text()}};
    if (set.is_behind_nat()) details["port_uenc"] = set.port_uenc.value;
    if (set.is_behind_nat() && (set.inner || !parameters.inner)) details["inner"] = set.ue_client().address.to_string();
    const auto reports = co_await p_.kernel.report_set(parameters);
    auto sas = Json::array();
    if (reports)
        for (const auto& sa : *reports) sas.push_back(sa_json(sa));
    else details["kernel_error"] = reports.error().text;
    details["sas"] = std::move(sas);
    co_return details;
}

// Looked up by key again after each await: the table moves on meanwhile.
Task<nlohmann::json> Operations::details_of(ContactKey key) {
    auto* registration = p_.table.find(key);
    if (!registration) co_return Json();
    auto details = row_of(*registration);
    details["generation"] = registration->generation;
    details["contact"] = registration->contact_uri;
    details["impus"] = Json::array();
    for (const auto& impu : registration->impus) details["impus"].push_back(impu.value);
    details["service_route"] = registration->service_route.value();
    details["identities"] = Json::array();
    for (const auto& identity : registration->identities) {
        auto set = Json::array();
        for (const auto& impu : identity.impus) set.push_back(impu.value);
        details["identities"].push_back({{"registered_as", identity.aor.value},
                                         {"impus", std::move(set)},
                                         {"service_route", identity.service_route.value()},
                                         {"expires_in", seconds_left(identity.expires)}});
    }
    if (registration->tls) {
        const auto& flow = registration->tls->flow;
        details["tls"] = {{"local", flow.local.to_string()},
                          {"remote", flow.remote.to_string()},
                          {"connection", flow.connection.value}};
        if (const auto protection = p_.transports.protection(flow.connection)) {
            details["tls"]["version"] = protection->version;
            details["tls"]["cipher"] = protection->cipher;
            details["tls"]["resumed"] = protection->resumed;
            details["tls"]["carried_by"] = protection->carried_by;
        }
    }
    std::vector<SetNumber> numbers;
    for (const auto& set : registration->sets) numbers.push_back(set->number);
    auto sets = Json::array();
    for (const auto number : numbers)
        if (auto set = co_await set_details(number); !set.is_null()) sets.push_back(std::move(set));
    details["sets"] = std::move(sets);
    co_return details;
}

Task<Result<nlohmann::json>> Operations::show(Json arguments) {
    const auto of = text_argument(arguments, "of");
    if (!of) co_return std::unexpected(of.error());
    if (of->empty()) co_return failure(Reaction::reject, "\"of\" is missing: an IMPI, IMPU or address");
    std::vector<ContactKey> keys;
    std::vector<SetNumber> challenged;
    std::function<void(Registration&)> look = [&](Registration& registration) {
        if (names(registration, *of) && keys.size() < static_cast<std::size_t>(kPage)) keys.push_back(registration.key);
    };
    co_await p_.table.walk(std::move(look));
    std::function<void(Challenge&)> look_too = [&](Challenge& challenge) {
        if (challenged.size() < static_cast<std::size_t>(kPage) &&
            (challenge.impi.value == *of || challenge.ue.to_string() == *of))
            challenged.push_back(challenge.set->number);
    };
    co_await p_.table.walk_challenges(std::move(look_too));
    auto contacts = Json::array(), challenges = Json::array(), records = Json::array(), waiting = Json::array();
    for (const auto& key : keys)
        if (auto contact = co_await details_of(key); !contact.is_null()) contacts.push_back(std::move(contact));
    for (const auto number : challenged) {
        const auto owner = p_.table.find_set(number);
        if (!owner.challenge) continue;
        Json challenge{{"impi", owner.challenge->impi.value},
                       {"ue", owner.challenge->ue.to_string()},
                       {"finished", owner.challenge->finished}};
        challenge["set"] = co_await set_details(number);
        challenges.push_back(std::move(challenge));
    }
    for (const auto& record : p_.trace.of(Impi{*of})) records.push_back(record_json(record));
    for (const auto& pending : p_.trace.pending(Impi{*of}))
        waiting.push_back({{"since", utc_text(pending.since)}, {"ue", pending.ue}, {"over", pending.over}});
    if (contacts.empty() && challenges.empty() && records.empty() && waiting.empty())
        co_return failure(Reaction::reject, "nothing is known of " + *of);
    co_return Json{{"of", *of},
                   {"contacts", std::move(contacts)},
                   {"challenges", std::move(challenges)},
                   {"records", std::move(records)},
                   {"waiting_for_core", std::move(waiting)}};
}

}  // namespace gmgate::daemon
