#include "daemon/privilege/privileges.h"

#include <set>

#include "base/confine.h"
#include "base/log.h"
#include "daemon/config/access.h"
#include "daemon/privilege/system_calls.h"
#include "ktls/handoff.h"

namespace gmgate::daemon {
namespace {

// Those that Gateway::open_sockets() will open.
std::multiset<Family> udp_ports(const Config& config) {
    const AccessMap accesses(config);
    const auto is_protected = accesses.protected_ports();
    std::set<Endpoint> ports(is_protected.begin(), is_protected.end());
    for (const auto& interface : config.sip_interfaces)
        for (const auto& port : interface.sip_ports)
            if (port.udp) ports.insert({port.address, port.port});
    if (config.core.transport != CoreTransport::tls) ports.insert(config.core.listen.begin(), config.core.listen.end());
    std::multiset<Family> families;
    for (const auto& port : ports) families.insert(port.address.family());
    return families;
}

}  // namespace

// Not those of phones behind NAT: the kernel shows a tunnel's packets to packet sockets a second time, in clear, and
// the tap would take every phone for one that lacks protection.
TapSettings tap_settings(const Config& config) {
    TapSettings settings;
    const AccessMap accesses(config);
    for (const auto& request : accesses.guard_requests())
        for (const auto port : request.ports) settings.protected_ports.push_back({request.gateway, port});
    return settings;
}

Result<Prepared> prepare(const Config& config) {
    Prepared prepared;
    for (const auto family : udp_ports(config)) {
        auto socket = sip::prepare_udp_socket(family);
        if (!socket) return std::unexpected(socket.error());
        prepared.udp.push_back(std::move(*socket));
    }
    if (config.packet_tap) {
        auto tap = open_tap_sockets(tap_settings(config));
        if (tap) prepared.tap = std::move(*tap);
    }
    if (config.ktls != Ktls::off && (!config.tls_profiles.empty() || config.core.transport == CoreTransport::tls))
        ktls::load_module();
    return prepared;
}

Result<void> give_up_privileges() {
    if (auto ok = keep_capabilities({}); !ok) return ok;
    if (auto ok = no_new_privileges(); !ok) return ok;
    return allow_system_calls(gmgated_system_calls(), Otherwise::refuse);
}

}  // namespace gmgate::daemon
