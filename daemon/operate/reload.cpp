#include "daemon/operate/reload.h"

#include <algorithm>
#include <functional>
#include <set>

#include <fmt/format.h>

namespace gmgate::daemon {
namespace {

using Apply = std::function<void(Config& live, const Config& fresh, std::size_t index)>;

/// Why a change cannot be applied by itself; empty when it can.
using Obstacle = std::function<std::string(const Config& live, const Config& fresh, std::size_t index)>;

struct Live {
    std::string_view key;  ///< without "[index]"
    Apply apply;
    Obstacle obstacle{};
};

// What phones are offered needs doors that are open: the ports of the running gateway, not those of the file.
std::string obstacle_to_offers(const Config& live, const Config& fresh, std::size_t index) {
    const auto& ports = live.sip_interfaces[index].sip_ports;
    const auto& wanted = fresh.sip_interfaces[index];
    const bool wants_tls = wanted.sec_agree_feature && allows_tls(wanted.sec_agree_pref);
    if (wants_tls && std::ranges::none_of(ports, &SipPort::tls))
        return "tls would be offered and no TLS port is open: drain, then restart gmgated, which opens it";
    if (!wants_tls && wanted.sec_agree_feature && std::ranges::any_of(ports, &SipPort::tls))
        return "a TLS port is open that would serve nobody: drain, then restart gmgated, which closes it";
    const bool wants_ipsec =
        (wanted.sec_agree_feature && allows_ipsec(wanted.sec_agree_pref)) || wanted.ims_aka_feature;
    if (wants_ipsec && std::ranges::all_of(ports, [](const SipPort& port) { return port.ims_aka_profile.empty(); }))
        return "ipsec-3gpp would be offered and no protected port is open: drain, then restart gmgated, which opens them";
    return {};
}

// Sockets and certificates towards the core are those of the start.
std::string obstacle_to_next_hops(const Config& live, const Config& fresh, std::size_t) {
    if (live.core.listen != fresh.core.listen)
        return "[core] listen has changed as well, which is read at start only; drain, then restart gmgated";
    if (live.core.transport != fresh.core.transport)
        return "[core] transport has changed as well, which is read at start only; drain, then restart gmgated";
    if (live.core.transport == CoreTransport::tls && live.core.tls_names() != fresh.core.tls_names())
        return "which names the core's certificates may have is fixed at start; drain, then restart gmgated";
    return {};
}

bool have_same_profiles(const Config& live, const Config& fresh) {
    return std::ranges::equal(live.ims_aka_profiles, fresh.ims_aka_profiles, {}, &ImsAkaProfile::name,
                              &ImsAkaProfile::name);
}

std::string obstacle_to_profiles(const Config& live, const Config& fresh, std::size_t) {
    return have_same_profiles(live, fresh) ? ""
                                           : "the list of profiles itself has changed; drain, then restart gmgated";
}

void apply_next_hops(Config& live, const Config& fresh, std::size_t) {
    live.core.next_hops = fresh.core.next_hops;
    live.core.emergency_next_hops = fresh.core.emergency_next_hops;
}

void apply_offers(Config& live, const Config& fresh, std::size_t index) {
    live.sip_interfaces[index].sec_agree_feature = fresh.sip_interfaces[index].sec_agree_feature;
    live.sip_interfaces[index].sec_agree_pref = fresh.sip_interfaces[index].sec_agree_pref;
    live.sip_interfaces[index].ims_aka_feature = fresh.sip_interfaces[index].ims_aka_feature;
}

void apply_algorithms(Config& live, const Config& fresh, std::size_t index) {
    live.ims_aka_profiles[index].preference = fresh.ims_aka_profiles[index].preference;
    live.ims_aka_profiles[index].refuse_deprecated = fresh.ims_aka_profiles[index].refuse_deprecated;
}

#define GMGATE_TOP(name, member)                                                                 \
    Live {                                                                                       \
        name, [](Config& live, const Config& fresh, std::size_t) { live.member = fresh.member; } \
    }
#define GMGATE_INTERFACE(name, member)                                                \
    Live {                                                                            \
        "sip-interface." name, [](Config& live, const Config& fresh, std::size_t i) { \
            live.sip_interfaces[i].member = fresh.sip_interfaces[i].member;           \
        }                                                                             \
    }

const std::vector<Live>& live_settings() {
    static const std::vector<Live> settings{
        GMGATE_TOP("log-level", log_level),
        GMGATE_TOP("limits.registrations", limits.registrations),
        GMGATE_TOP("limits.challenges", limits.challenges),
        GMGATE_TOP("limits.challenges-per-address", limits.challenges_per_address),
        GMGATE_TOP("limits.sets-per-address", limits.sets_per_address),
        GMGATE_TOP("limits.authentications", limits.authentications.in_all),
        GMGATE_TOP("limits.authentications-per-source", limits.authentications.per_source),
        GMGATE_TOP("limits.authentications-per-impi", limits.authentications.per_impi),
        GMGATE_TOP("core.peers", core.peers),
        GMGATE_TOP("timers.reg-await-auth", timers.reg_await_auth),
        GMGATE_TOP("timers.old-set", timers.old_set),
        GMGATE_TOP("timers.lifetime-margin", timers.lifetime_margin),
        GMGATE_TOP("timers.kernel-margin", timers.kernel_margin),
        GMGATE_TOP("timers.ringing", timers.ringing),
        GMGATE_TOP("timers.final-answer", timers.final_answer),
        GMGATE_INTERFACE("confidentiality", confidentiality),
        GMGATE_INTERFACE("no-security-client", no_security_client),
        GMGATE_INTERFACE("security-server", security_server),
        GMGATE_INTERFACE("security-server-q", security_server_q),
        GMGATE_INTERFACE("require-both", require_both),
        GMGATE_INTERFACE("refresh-authorization", refresh_authorization),
        GMGATE_INTERFACE("strict-refresh", strict_refresh),
        GMGATE_INTERFACE("ignore-q", ignore_q),
        GMGATE_INTERFACE("bare-integrity-protected", bare_integrity_protected),
        GMGATE_INTERFACE("refuse-mediasec", refuse_mediasec),
        GMGATE_INTERFACE("server-initiated", server_initiated),
        GMGATE_INTERFACE("strict-collision", strict_collision),
        GMGATE_INTERFACE("aka-over-tls", reject_akav1_over_tls),
        GMGATE_INTERFACE("tls-connected", tls_connected),
        GMGATE_INTERFACE("anonymous-emergency", anonymous_emergency),
        GMGATE_INTERFACE("emergency-numbers", emergency_numbers),
        GMGATE_INTERFACE("alternative-service", alternative_service),
        {"sip-interface.sec-agree-feature", apply_offers, obstacle_to_offers},
        {"sip-interface.sec-agree-pref", apply_offers, obstacle_to_offers},
        {"sip-interface.ims-aka-feature", apply_offers, obstacle_to_offers},
        {"ims-aka-profile.encr-alg-list", apply_algorithms, obstacle_to_profiles},
        {"ims-aka-profile.auth-alg-list", apply_algorithms, obstacle_to_profiles},
        {"ims-aka-profile.preference", apply_algorithms, obstacle_to_profiles},
        {"ims-aka-profile.refuse-deprecated", apply_algorithms, obstacle_to_profiles},
        {"core.next-hop", apply_next_hops, obstacle_to_next_hops},
        {"core.next-hops.host", apply_next_hops, obstacle_to_next_hops},
        {"core.next-hops.priority", apply_next_hops, obstacle_to_next_hops},
        {"core.next-hops.weight", apply_next_hops, obstacle_to_next_hops},
        {"core.next-hops.transport", apply_next_hops, obstacle_to_next_hops},
        {"core.next-hops.tls-name", apply_next_hops, obstacle_to_next_hops},
        {"core.emergency-next-hop", apply_next_hops, obstacle_to_next_hops},
        {"core.emergency-next-hops.host", apply_next_hops, obstacle_to_next_hops},
        {"core.emergency-next-hops.priority", apply_next_hops, obstacle_to_next_hops},
        {"core.emergency-next-hops.weight", apply_next_hops, obstacle_to_next_hops},
        {"core.emergency-next-hops.transport", apply_next_hops, obstacle_to_next_hops},
        {"core.emergency-next-hops.tls-name", apply_next_hops, obstacle_to_next_hops},
    };
    return settings;
}
#undef GMGATE_TOP
#undef GMGATE_INTERFACE

// Why the rest waits for a restart; the longest prefix that fits counts.
constexpr std::pair<std::string_view, std::string_view> kReasons[] = {
    {"", "read at start only; restart gmgated"},
    {"metrics-", "the port stays as it was opened; restart gmgated"},
    {"hep-", "the socket stays as it was opened; restart gmgated"},
    {"packet-tap", "the tap stays as it was opened; restart gmgated"},
    {"control-", "the control socket stays as it was opened; restart gmgated"},
    {"core.",
     "open transactions and Path headers that the core holds name the old address; drain, then restart gmgated"},
    {"sip-interface.", "registered phones depend on it: drain, then restart gmgated"},
    {"sip-interface.sip-ports.",
     "sockets and guard policies would have to change under registered phones: drain, then restart gmgated"},
    {"ims-aka-profile.", "ports and guard policies were fixed at start: drain, then restart gmgated"},
    {"tls-profile.",
     "which files a profile reads is fixed at start; put the new certificate into the same file, or restart gmgated"},
    {"ktls", "sessions that stand are in the kernel or not; restart gmgated"},
    {"lab.", "whether keys may leave is fixed at start, and told there; restart gmgated"},
    {"xfrm.", "every SA in the kernel carries the old value: drain, then restart gmgated"},
    {"limits.", "the table was made for the old size; restart gmgated"},
};

std::string_view reason_for(const std::string& key) {
    std::string_view best_prefix, best = kReasons[0].second;
    for (const auto& [prefix, why] : kReasons)
        if (key.starts_with(prefix) && prefix.size() >= best_prefix.size()) {
            best_prefix = prefix;
            best = why;
        }
    return best;
}

/// "sip-interface[1].ignore-q" → ("sip-interface.ignore-q", 1)
std::pair<std::string, std::size_t> split_index(const std::string& key) {
    std::string plain;
    std::size_t index = 0, at = 0;
    bool first = true;
    for (auto open = key.find('['); open != std::string::npos; open = key.find('[', at)) {
        const auto close = key.find(']', open);
        plain += key.substr(at, open - at);
        if (first) index = std::stoul(key.substr(open + 1, close - open - 1));
        first = false;
        at = close + 1;
    }
    return {plain + key.substr(at), index};
}

// Settings of an interface may be carried over only to the same interface.
bool same_interfaces(const Config& live, const Config& fresh) {
    return std::ranges::equal(live.sip_interfaces, fresh.sip_interfaces, {}, &SipInterface::realm_id,
                              &SipInterface::realm_id);
}

nlohmann::json list_of(const std::vector<SettingChange>& changes) {
    auto list = nlohmann::json::array();
    for (const auto& change : changes)
        list.push_back({{"key", change.key}, {"before", change.before}, {"now", change.now}, {"why", change.why}});
    return list;
}

}  // namespace

nlohmann::json ReloadReport::json() const {
    return {{"applied", list_of(applied)}, {"refused", list_of(refused)}, {"notes", notes}};
}

ReloadReport apply_reload(Config& live, const Config& fresh) {
    std::set<std::string> keys;
    for (const auto& [key, value] : live.settings) keys.insert(key);
    for (const auto& [key, value] : fresh.settings) keys.insert(key);
    const auto text = [](const Config& config, const std::string& key) {
        const auto at = config.settings.find(key);
        return at == config.settings.end() ? std::string{} : at->second;
    };
    ReloadReport report;
    const bool interfaces_match = same_interfaces(live, fresh);
    for (const auto& key : keys) {
        SettingChange change{key, text(live, key), text(fresh, key), {}};
        if (change.before == change.now) continue;
        const auto [plain, index] = split_index(key);
        const auto known = std::ranges::find(live_settings(), plain, &Live::key);
        if (known == live_settings().end()) change.why = reason_for(plain);
        else if (plain.starts_with("sip-interface.") && !interfaces_match)
            change.why = "the list of interfaces itself has changed; drain, then restart gmgated";
        else if (known->obstacle) change.why = known->obstacle(live, fresh, index);
        if (!change.why.empty()) {
            report.refused.push_back(std::move(change));
            continue;
        }
        known->apply(live, fresh, index);
        if (change.now.empty()) live.settings.erase(key);
        else live.settings[key] = change.now;
        report.applied.push_back(std::move(change));
    }
    return report;
}

}  // namespace gmgate::daemon
