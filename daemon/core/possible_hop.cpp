#include "daemon/core/possible_hop.h"

#include <algorithm>

#include "daemon/config/config.h"
#include "sip/transport/transport.h"

namespace gmgate::daemon {

namespace {

/// 127.0.0.0/8, ::1.
bool is_loopback(const Address& address) {
    const auto& bytes = address.bytes();
    if (!address.is_v6()) return bytes[0] == 127;
    return address == *Address::parse("::1");
}

/// 0.0.0.0/8, 224.0.0.0/4 and what is above it; ::, ff00::/8.
bool is_nobodys(const Address& address) {
    if (address.is_any()) return true;
    const auto first = address.bytes()[0];
    return address.is_v6() ? first == 0xff : first == 0 || first >= 224;
}

}  // namespace

bool may_be_core(const Core& core, const sip::Transports& transports, const Endpoint& answer) {
    const Address& address = answer.address;
    if (answer.port.value == 0 || is_nobodys(address) || core.listens_at(answer)) return false;
    const auto is_here = [](const Endpoint& local) { return is_loopback(local.address); };
    if (is_loopback(address) && std::ranges::none_of(core.listen, is_here)) return false;
    const auto is_cores = [&](const Endpoint& local) { return local.address == address; };
    const bool is_core_side = std::ranges::any_of(core.listen, is_cores);
    bool is_ours = false;
    transports.for_each_socket([&](const Endpoint& local, bool, int) {
        is_ours = is_ours || local == answer || (local.address == address && !is_core_side);
    });
    return !is_ours;
}

}  // namespace gmgate::daemon
