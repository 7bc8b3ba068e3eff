#include "daemon/config/nat.h"

namespace gmgate::daemon {
namespace {

std::vector<Port> ports_from(Port first, int count) {
    std::vector<Port> ports;
    for (int i = 0; i < count; ++i) ports.emplace_back(static_cast<std::uint16_t>(first.value + i));
    return ports;
}

}  // namespace

xfrm::PortBlock NatTraversal::block() const {
    if (!is_on || end_protected_port < start_protected_port) return {};
    return {start_protected_port,
            static_cast<std::uint16_t>(end_protected_port.value - start_protected_port.value + 1)};
}

std::vector<Port> NatTraversal::server_ports() const { return ports_from(block().first, block().size / 2); }

std::vector<Port> NatTraversal::client_ports() const {
    const auto [first, size] = block();
    return ports_from(Port{static_cast<std::uint16_t>(first.value + size / 2)}, size / 2);
}

}  // namespace gmgate::daemon
