#include "daemon/restart/inheritance.h"

#include <systemd/sd-daemon.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include <fmt/format.h>

namespace gmgate::daemon {

std::string name_of(sip::ConnectionId connection) { return fmt::format("c{}", connection.value); }

std::string socket_name(std::string_view kind, const Endpoint& local) {
    auto name = fmt::format("socket-{}-{}_{}", kind, local.address.to_string(), local.port.value);
    std::ranges::replace(name, ':', '.');
    return name;
}

std::string socket_name_of(int descriptor) {
    return socket_name(sip::is_udp_socket(descriptor) ? "udp" : "stream", sip::local_endpoint_of(descriptor));
}

void Inheritance::take(const std::string& name, sip::FileDescriptor descriptor) {
    std::uint64_t number = 0;
    const auto* end = name.data() + name.size();
    if (name == kLedgerName) ledger = std::move(descriptor);
    else if (name == kLockName) lock = std::move(descriptor);
    else if (name.starts_with("socket-")) sockets.push_back(std::move(descriptor));
    else if (name.starts_with("c") && std::from_chars(name.data() + 1, end, number).ptr == end && number != 0)
        connections[sip::ConnectionId{number}] = std::move(descriptor);
    else unknown.push_back(name);
}

Inheritance inherit_from_service_manager() {
    Inheritance inheritance;
    char** names = nullptr;
    const int count =
        sd_listen_fds_with_names(1, &names);  // close-on-exec; the variables are taken out of the environment
    for (int i = 0; i < count; ++i) {
        inheritance.take(names && names[i] ? names[i] : "", sip::FileDescriptor(SD_LISTEN_FDS_START + i));
        if (names) std::free(names[i]);
    }
    std::free(names);
    return inheritance;
}

}  // namespace gmgate::daemon
