#include "xfrm/engine/rules.h"

#include <algorithm>
#include <cerrno>

#include <fmt/format.h>

namespace gmgate::xfrm {
namespace {

std::unexpected<Error> forbidden(std::string text) {
    return failure(Reaction::refused, "not allowed by the engine's configuration: " + std::move(text), EPERM);
}

bool is_multicast(const Address& address) {
    return address.is_v6() ? address.bytes()[0] == 0xff : address.bytes()[0] >= 224;
}

}  // namespace

EngineRules::EngineRules(EngineConfiguration configuration) : configuration_(std::move(configuration)) {
    for (const auto& range : configuration_.ports) ports_[range.gateway].push_back(range);
}

bool EngineRules::is_protected(const Address& gateway, Port port, Mode mode) const {
    const auto at = ports_.find(gateway);
    return at != ports_.end() && std::ranges::any_of(at->second, [&](const PortRange& range) {
               return range.mode == mode && port >= range.first && port <= range.last;
           });
}

Result<void> EngineRules::check_set(const SetParameters& p) const {
    if (!ports_.contains(p.gateway)) return forbidden(p.gateway.to_string() + " is no access address");
    for (const auto port : {p.port_pc, p.port_ps})
        if (!is_protected(p.gateway, port, p.mode))
            return forbidden(fmt::format("port {} of {} is no protected port{}", port.value, p.gateway.to_string(),
                                         p.mode == Mode::udp_enc_tun ? " for phones behind NAT" : ""));
    if (ports_.contains(p.ue)) return forbidden("the UE's address is one of the gateway's");
    if (p.ue.is_any() || is_multicast(p.ue)) return forbidden("the UE's address is no phone's");
    if (p.inner && (p.inner->is_any() || is_multicast(*p.inner) || ports_.contains(*p.inner)))
        return forbidden("the UE's inner address is no phone's");
    return {};
}

Result<void> EngineRules::check_install(const SetRequest& request, ReqId reqid) const {
    const auto& c = configuration_;
    if (reqid != c.owner.reqid) return forbidden(fmt::format("reqid {} is another's", reqid.value));
    if (request.mark.value == 0 || (request.mark.value & ~c.owner.mark_mask) != 0)
        return forbidden("the mark is 0 or outside of its mask");
    for (const auto spi : {request.parameters.spi_pc, request.parameters.spi_ps})
        if (spi < c.spi_first || spi > c.spi_last)
            return forbidden(fmt::format("the inbound SPI {:#010x} is outside of the range", spi.value));
    return check_set(request.parameters);
}

Result<void> EngineRules::check_guards(const GuardRequest& request) const {
    for (const auto port : request.ports)
        if (!is_protected(request.gateway, port, Mode::transport))
            return forbidden(fmt::format("a policy for {} port {}, which is no protected port",
                                         request.gateway.to_string(), port.value));
    if (!request.nat) return {};
    const auto at = ports_.find(request.gateway);
    const bool is_configured = at != ports_.end() && std::ranges::any_of(at->second, [&](const PortRange& range) {
                                   return range.nat_block() == request.nat;
                               });
    if (!is_configured)
        return forbidden(fmt::format("policies for {} ports from {} on at {}, which are no block for phones behind NAT",
                                     request.nat->size, request.nat->first.value, request.gateway.to_string()));
    return {};
}

}  // namespace gmgate::xfrm
