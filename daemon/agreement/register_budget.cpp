// What nothing protects costs the home network an authentication vector, whoever sent it: who may still cost one.
#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/log.h"
#include "daemon/agreement/contact.h"
#include "daemon/agreement/register_flow.h"

namespace gmgate::daemon {

AuthenticationBudget::Asker RegisterFlow::asker_of(const Exchange& x) const {
    const Address ue = x.flow().remote.address;
    const auto is_here = [&](const Registration* known) {
        const auto* set = known->outbound();
        return known->tls ? known->tls->flow.remote.address == ue : set && set->parameters.ue == ue;
    };
    return {.address = ue,
            .impi = x.impi,
            .is_known_address = p_.known && p_.known->contains(ue),
            .is_own_address = std::ranges::any_of(p_.table.find_by_impi(x.impi), is_here),
            .is_emergency = is_emergency_contact(x.contact)};
}

std::optional<Objection> RegisterFlow::spare_core(Exchange& x) {
    if (!p_.budget || x.is_bound || (x.over != Over::unprotected && x.over != Over::tls)) return std::nullopt;
    AuthenticationCharge charge;
    const auto limit = p_.budget->take(asker_of(x), &charge);
    if (limit.empty()) {
        x.charge = charge;
        return std::nullopt;
    }
    p_.counters.add(Counter::core_spared);
    log::notice("core-spared", {{"impi", x.impi.value}, {"ue", x.record.ue}, {"limit", limit}});
    return Objection{503, "limit", fmt::format("too many REGISTERs in clear: [limits] {}", limit)};
}

// A phone that registers is none of those who must be bounded. Each charge comes back once: what challenged it, and
// over TLS the answer itself, which was counted like anybody's.
void RegisterFlow::give_back_authentication(Exchange& x) {
    if (!p_.budget) return;
    const auto give_back = [&](std::optional<AuthenticationCharge>& charge) {
        if (charge) p_.budget->give_back(*std::exchange(charge, std::nullopt));
    };
    if (x.over == Over::temporary) {
        if (auto* challenge = p_.table.find_set(x.set).challenge) give_back(challenge->charge);
    } else if (x.over == Over::tls && !x.is_bound) {
        auto asked = p_.tls_agreements.take_charge(x.challenge_key());
        give_back(asked);
        give_back(x.charge);
    }
}

}  // namespace gmgate::daemon
