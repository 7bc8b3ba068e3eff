#include "daemon/registrations/tls_agreements.h"

namespace gmgate::daemon {

bool TlsAgreements::put(const Impi& impi, const Address& ue, TlsAgreement agreement) {
    if (agreements_.size() >= limit_)
        std::erase_if(agreements_, [&](const auto& entry) { return entry.second.expires <= clock_.now(); });
    if (agreements_.size() >= limit_ && !agreements_.contains({impi, ue})) return false;
    erase_refusal({impi, ue});  // the latest list counts
    agreements_.insert_or_assign({impi, ue}, std::move(agreement));
    return true;
}

void TlsAgreements::erase(const Impi& impi, const Address& ue) {
    agreements_.erase({impi, ue});
    erase_refusal({impi, ue});
}

void TlsAgreements::erase_refusal(const Key& key) {
    const auto at = refusals_.find(key);
    if (at == refusals_.end()) return;
    oldest_.erase(at->second.order);
    refusals_.erase(at);
}

void TlsAgreements::put_refusal(const Impi& impi, const Address& ue, std::string security_server, TimePoint expires) {
    constexpr std::size_t kLongestImpi = 253;  // TS 23.003 §2.2, RFC 7542 §2.4: what is longer is no phone's
    if (impi.value.size() > kLongestImpi || limit_ == 0) return;
    Key key{impi, ue};
    erase_refusal(key);
    if (refusals_.size() >= limit_) {
        const Key first = oldest_.begin()->second;
        erase_refusal(first);
    }
    oldest_[++last_order_] = key;
    refusals_.emplace(std::move(key), Refusal{std::move(security_server), expires, last_order_});
}

const std::string* TlsAgreements::find_refusal(const Impi& impi, const Address& ue) const {
    const auto at = refusals_.find({impi, ue});
    return at == refusals_.end() || at->second.expires <= clock_.now() ? nullptr : &at->second.security_server;
}

const TlsAgreement* TlsAgreements::find(const Impi& impi, const Address& ue) const {
    const auto at = agreements_.find({impi, ue});
    return at == agreements_.end() || at->second.expires <= clock_.now() ? nullptr : &at->second;
}

}  // namespace gmgate::daemon
