#include "daemon/registrations/registration.h"

#include <algorithm>

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

void Registration::summarise() {
    if (identities.empty()) return;
    impus.clear();
    expires = identities.front().expires;
    for (const auto& identity : identities) {
        expires = std::max(expires, identity.expires);
        for (const auto& impu : identity.impus)
            if (std::ranges::find(impus, impu) == impus.end()) impus.push_back(impu);
    }
    service_route = identities.front().service_route;
}

std::vector<std::string> Registration::all_routes() const {
    if (identities.empty()) return service_route.value();  // it has ended
    std::vector<std::string> routes;
    for (const auto& identity : identities)
        routes.insert(routes.end(), identity.service_route->begin(), identity.service_route->end());
    return routes;
}

TimePoint Registration::first_end() const {
    auto first = expires;
    for (const auto& identity : identities) first = std::min(first, identity.expires);
    return first;
}

std::size_t Registration::drop_ended(TimePoint time) {
    const auto lives = [&](const auto& identity) { return identity.expires > time; };
    if (std::ranges::none_of(identities, lives)) return 0;
    const auto dropped = std::erase_if(identities, [&](const auto& identity) { return !lives(identity); });
    if (dropped != 0) summarise();
    return dropped;
}

void Registration::shorten(TimePoint until) {
    expires = std::min(expires, until);
    for (auto& identity : identities) identity.expires = std::min(identity.expires, until);
}

SaSet* Registration::find(SetNumber wanted) {
    for (const auto& set : sets)
        if (set->number == wanted) return set.get();
    return nullptr;
}

}  // namespace gmgate::daemon
