#include "xfrm/sa.h"

namespace gmgate::xfrm {

bool is_same(const Sa& told, const Sa& meant) {
    return told.source == meant.source && told.destination == meant.destination &&
           told.encapsulation.has_value() == meant.encapsulation.has_value() &&
           told.has_any_inner == meant.has_any_inner;
}

std::array<Sa, 4> four_sas(const SetParameters& p, Port port_uenc) {
    const auto around = [&](Port from, Port to) {
        return p.mode == Mode::transport ? std::nullopt : std::optional(Encapsulation{from, to});
    };
    const auto inbound = [&](Port from, Port to, Spi spi) {
        return Sa{.id = {p.gateway, spi},
                  .direction = Direction::in,
                  .source = {p.ue, from},
                  .destination = {p.gateway, to},
                  .encapsulation = around(port_uenc, kEncapsulationPort),
                  .has_any_inner = p.inner.has_value()};
    };
    const auto outbound = [&](Port from, Port to, Spi spi) {
        return Sa{.id = {p.ue, spi},
                  .direction = Direction::out,
                  .source = {p.gateway, from},
                  .destination = {p.ue, to},
                  .encapsulation = around(kEncapsulationPort, port_uenc),
                  .has_any_inner = p.inner.has_value()};
    };
    return {inbound(p.port_uc, p.port_ps, p.spi_ps), outbound(p.port_pc, p.port_us, p.spi_us),
            inbound(p.port_us, p.port_pc, p.spi_pc), outbound(p.port_ps, p.port_uc, p.spi_uc)};
}

std::vector<GuardPolicy> guard_policies(const GuardRequest& request) {
    std::vector<GuardPolicy> policies;
    policies.reserve(request.ports.size() * 2 + 2);
    const auto add = [&](Port port, std::uint16_t nat_block) {
        policies.push_back({Direction::in, {request.gateway, port}, nat_block});
        policies.push_back({Direction::out, {request.gateway, port}, nat_block});
    };
    for (const Port port : request.ports) add(port, 0);
    if (request.nat) add(request.nat->first, request.nat->size);
    return policies;
}

}  // namespace gmgate::xfrm
