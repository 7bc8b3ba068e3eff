#include "daemon/tls/profile_options.h"

#include <algorithm>

#include "daemon/config/tls_settings.h"
#include "daemon/tls/engine.h"

namespace gmgate::daemon {

Result<ktls::ServerOptions> phone_options(const Config& config, const TlsProfile& profile) {
    auto settings = load_tls_settings(config, profile.name);
    if (!settings) return std::unexpected(std::move(settings.error()));
    ktls::ServerOptions options;
    options.certificates = certificate_files(profile);
    const auto responses = std::min(settings->ocsp_responses.size(), options.certificates.size());
    for (std::size_t i = 0; i < responses; ++i) options.certificates[i].ocsp = settings->ocsp_responses[i];
    options.allow_tls12 = settings->tls12;
    options.allow_tls13 = settings->tls13;
    options.ciphers = std::move(settings->ciphers);
    options.groups = std::move(settings->groups);
    options.ticket_key_file = std::move(settings->ticket_key_file);
    options.demand_client_certificate = settings->mutual_authenticate;
    options.client_ca_file = std::move(settings->trusted_ca);
    options.client_names = std::move(settings->client_domains);
    return options;
}

Result<ktls::ServerOptions> core_options(const Config& config, const TlsProfile& profile) {
    auto options = phone_options(config, profile);
    if (!options) return options;
    options->demand_client_certificate = true;
    options->client_ca_file = config.core.tls_ca;
    options->client_names = config.core.tls_names();
    return options;
}

}  // namespace gmgate::daemon
