#include "daemon/registrations/tls_agreements.h"

namespace gmgate::daemon {

bool TlsAgreements::put(const Impi& impi, const Address& ue, TlsAgreement agreement) {
    if (agreements_.size() >= limit_)
        std::erase_if(agreements_, [&](const auto& entry) { return entry.second.expires <= clock_.now(); });
    if (agreements_.size() >= limit_ && !agreements_.contains({impi, ue})) return false;
    agreements_.insert_or_assign({impi, ue}, std::move(agreement));
    return true;
}

const TlsAgreement* TlsAgreements::find(const Impi& impi, const Address& ue) const {
    const auto at = agreements_.find({impi, ue});
    return at == agreements_.end() || at->second.expires <= clock_.now() ? nullptr : &at->second;
}

}  // namespace gmgate::daemon
