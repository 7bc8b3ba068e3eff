#include "daemon/config/tls_settings.h"

#include <algorithm>
#include <array>

#include "daemon/config/config_toml.h"

namespace gmgate::daemon {
namespace {

constexpr std::array<std::string_view, 8> kKeys{
    "tls-version",    "cipher-list",   "groups",         "mutual-authenticate", "trusted-ca-certificates",
    "client-domains", "ocsp-response", "ticket-key-file"};

/// Whether the file says anything of this in any profile.
bool says_something(const Config& config) {
    return std::ranges::any_of(config.settings, [](const auto& setting) {
        const std::string& name = setting.first;
        return name.starts_with("tls-profile") &&
               std::ranges::any_of(kKeys, [&](std::string_view key) { return name.find(key) != std::string::npos; });
    });
}

void read_versions(Section& section, TlsSettings& settings) {
    std::vector<std::string> versions{"1.2", "1.3"};
    section.texts("tls-version", versions);
    settings.tls12 = std::ranges::find(versions, "1.2") != versions.end();
    settings.tls13 = std::ranges::find(versions, "1.3") != versions.end();
    const auto known = static_cast<std::size_t>(settings.tls12) + static_cast<std::size_t>(settings.tls13);
    if (known == 0 || known != versions.size())
        section.mistake("tls-version", "is \"1.2\", \"1.3\" or both in a list: nothing older is served (TS 33.210)");
}

}  // namespace

void read_tls_settings(Section& section, std::size_t certificates, TlsSettings& settings) {
    read_versions(section, settings);
    section.texts("cipher-list", settings.ciphers);
    section.texts("groups", settings.groups);
    section.boolean("mutual-authenticate", settings.mutual_authenticate);
    section.text("trusted-ca-certificates", settings.trusted_ca);
    section.texts("client-domains", settings.client_domains);
    section.texts("ocsp-response", settings.ocsp_responses);
    section.text("ticket-key-file", settings.ticket_key_file);
    if (!settings.mutual_authenticate && (!settings.trusted_ca.empty() || !settings.client_domains.empty()))
        section.mistake("mutual-authenticate",
                        "trusted-ca-certificates and client-domains need mutual-authenticate = true");
    if (!settings.ocsp_responses.empty() && settings.ocsp_responses.size() != certificates)
        section.mistake("ocsp-response", "give one file for each certificate file, in the same order; \"\" for none");
}

Result<TlsSettings> load_tls_settings(const Config& config, std::string_view profile) {
    TlsSettings settings;
    if (!says_something(config)) return settings;
    try {
        const auto document = toml::parse_file(config.path);
        const auto* profiles = document["tls-profile"].as_array();
        for (std::size_t i = 0; profiles != nullptr && i < profiles->size(); ++i) {
            const auto* table = profiles->get(i)->as_table();
            if (table == nullptr || (*table)["name"].value_or(std::string_view()) != profile) continue;
            Mistakes mistakes(config.path);
            Section section(*table, "[[tls-profile]]", mistakes);
            std::vector<std::string> certificates;
            section.texts("end-entity-cert", certificates);
            read_tls_settings(section, certificates.size(), settings);
            if (!mistakes.none()) return failure(Reaction::reject, mistakes.text());
            return settings;
        }
    } catch (const toml::parse_error& error) {
        return failure(Reaction::reject, config.path + ": " + std::string(error.description()));
    }
    return failure(Reaction::reject,
                   config.path + ": tls-profile " + std::string(profile) + " has gone since the file was checked");
}

}  // namespace gmgate::daemon
