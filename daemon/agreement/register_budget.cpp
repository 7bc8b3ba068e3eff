// What nothing protects costs the home network an authentication vector, whoever sent it: who may still cost one.
#include <algorithm>

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

std::optional<Objection> RegisterFlow::spare_core(const Exchange& x) {
    if (!p_.budget || x.is_bound || (x.over != Over::unprotected && x.over != Over::tls)) return std::nullopt;
    const auto limit = p_.budget->take(asker_of(x));
    if (limit.empty()) return std::nullopt;
    p_.counters.add(Counter::core_spared);
    log::notice("core-spared", {{"impi", x.impi.value}, {"ue", x.record.ue}, {"limit", limit}});
    return Objection{503, "limit", fmt::format("too many REGISTERs in clear: [limits] {}", limit)};
}

// A phone that registers is none of those who must be bounded.
void RegisterFlow::give_back_authentication(const Exchange& x) {
    if (p_.budget && (x.over == Over::temporary || (x.over == Over::tls && !x.is_bound)))
        p_.budget->give_back(x.flow().remote.address, x.impi, is_emergency_contact(x.contact));
}

}  // namespace gmgate::daemon
