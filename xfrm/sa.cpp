#include "xfrm/sa.h"

namespace gmgate::xfrm {

std::array<Sa, 4> four_sas(const SetParameters& p) {
    const auto inbound = [&](Port from, Port to, Spi spi) {
        return Sa{
            .id = {p.gateway, spi}, .direction = Direction::in, .source = {p.ue, from}, .destination = {p.gateway, to}};
    };
    const auto outbound = [&](Port from, Port to, Spi spi) {
        return Sa{
            .id = {p.ue, spi}, .direction = Direction::out, .source = {p.gateway, from}, .destination = {p.ue, to}};
    };
    return {inbound(p.port_uc, p.port_ps, p.spi_ps), outbound(p.port_pc, p.port_us, p.spi_us),
            inbound(p.port_us, p.port_pc, p.spi_pc), outbound(p.port_ps, p.port_uc, p.spi_uc)};
}

std::vector<GuardPolicy> guard_policies(const GuardRequest& request) {
    std::vector<GuardPolicy> policies;
    policies.reserve(request.ports.size() * 2);
    for (const Port port : request.ports) {
        policies.push_back({Direction::in, {request.gateway, port}});
        policies.push_back({Direction::out, {request.gateway, port}});
    }
    return policies;
}

}  // namespace gmgate::xfrm
