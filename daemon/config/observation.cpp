#include "daemon/config/observation.h"

#include <charconv>
#include <string_view>
#include <utility>

namespace gmgate::daemon {
namespace {

using Settings = std::map<std::string, std::string>;

// Texts stand there in quotes of either kind; the parser takes none with a quote or a backslash in it.
std::string text_of(const Settings& settings, const char* key) {
    const auto at = settings.find(key);
    if (at == settings.end()) return {};
    const auto& text = at->second;
    return text.size() >= 2 && (text.front() == '"' || text.front() == '\'') ? text.substr(1, text.size() - 2) : text;
}

std::size_t number_of(const Settings& settings, const char* key, std::size_t without) {
    std::string_view text;
    if (const auto at = settings.find(key); at != settings.end()) text = at->second;
    int base = 10;
    for (const auto& [prefix, its_base] : {std::pair{"0x", 16}, {"0o", 8}, {"0b", 2}})  // as TOML writes numbers
        if (text.starts_with(prefix)) base = its_base;
    if (base != 10) text.remove_prefix(2);
    std::size_t value = without;
    std::from_chars(text.data(), text.data() + text.size(), value, base);
    return value;
}

std::chrono::seconds seconds_of(const Settings& settings, const char* key, std::chrono::seconds without) {
    return std::chrono::seconds(number_of(settings, key, static_cast<std::size_t>(without.count())));
}

}  // namespace

Observation observation_of(const Settings& settings) {
    Observation seen;
    seen.recorder.octets = number_of(settings, "limits.recorded-octets", seen.recorder.octets);
    seen.recorder.octets_per_source =
        number_of(settings, "limits.recorded-octets-per-source", seen.recorder.octets_per_source);
    const auto transport = text_of(settings, "hep-transport");
    seen.hep.transport = transport == "tls"   ? HepSettings::Transport::tls
                         : transport == "tcp" ? HepSettings::Transport::tcp
                                              : HepSettings::Transport::udp;
    seen.hep.auth_key_file = text_of(settings, "hep-auth-key-file");
    seen.hep.tls_ca = text_of(settings, "hep-tls-ca");
    seen.hep.tls_name = text_of(settings, "hep-tls-name");
    seen.log_format = text_of(settings, "log-format") == "json" ? LogFormat::json : LogFormat::text;
    seen.unregistered_idle = seconds_of(settings, "timers.unregistered-idle", seen.unregistered_idle);
    return seen;
}

}  // namespace gmgate::daemon
