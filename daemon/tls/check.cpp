#include "daemon/tls/check.h"

#include <fmt/format.h>

#include "daemon/tls/profile_options.h"
#include "ktls/context.h"

namespace gmgate::daemon {

std::vector<std::string> check_certificates(const Config& config) {
    std::vector<std::string> problems;
    for (const auto& profile : config.tls_profiles) {
        std::string ports;
        for (const auto& interface : config.sip_interfaces)
            for (const auto& port : interface.sip_ports)
                if (port.tls && port.tls_profile == profile.name)
                    ports +=
                        fmt::format("{}{}", ports.empty() ? "" : ", ", Endpoint{port.address, port.port}.to_string());
        const bool is_for_core = config.core.transport == CoreTransport::tls && config.core.tls_profile == profile.name;
        if (ports.empty() && !is_for_core) continue;
        auto options = is_for_core ? core_options(config, profile) : phone_options(config, profile);
        const auto context = options ? ktls::Context::server(std::move(*options))
                                     : Result<ktls::Context>(std::unexpected(std::move(options.error())));
        if (context) continue;
        const std::string effect = is_for_core ? "gmgated would not start: [core] needs it"
                                               : fmt::format("TLS port {} would stay closed", ports);
        problems.push_back(
            fmt::format("{}: tls-profile {}: {}; {}", config.path, profile.name, context.error().text, effect));
    }
    return problems;
}

}  // namespace gmgate::daemon
