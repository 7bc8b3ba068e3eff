#include "daemon/registrations/registration.h"

namespace gmgate::daemon {

std::string_view to_string(SetState state) {
    switch (state) {
        case SetState::temporary:
            return "temporary";
        case SetState::established:
            return "established";
        case SetState::old:
            return "old";
    }
    return "?";
}

xfrm::SpiPair SaSet::own_spis() const { return {parameters.spi_pc, parameters.spi_ps}; }

const SaSet* Registration::outbound() const {
    const SaSet* newest_established = nullptr;
    for (const auto& set : sets) {
        if (set->in_use) return set.get();
        if (set->state == SetState::established) newest_established = set.get();
    }
    return newest_established ? newest_established : (sets.empty() ? nullptr : sets.back().get());
}

std::optional<Endpoint> Registration::reached_at() const {
    if (tls) return tls->flow.local;
    if (const auto* set = outbound()) return set->gateway_server();
    return std::nullopt;
}

SaSet* Registration::find(SetNumber number) {
    for (const auto& set : sets)
        if (set->number == number) return set.get();
    return nullptr;
}

}  // namespace gmgate::daemon
