#include "daemon/registrations/tls_agreements.h"

namespace gmgate::daemon {

bool TlsAgreements::put(const ChallengeKey& key, TlsAgreement agreement) {
    if (agreements_.size() >= limit_)
        std::erase_if(agreements_, [&](const auto& entry) { return entry.second.expires <= clock_.now(); });
    if (agreements_.size() >= limit_ && !agreements_.contains(key)) return false;
    erase_refusal(key);  // the latest list counts
    agreements_.insert_or_assign(key, std::move(agreement));
    return true;
}

std::optional<AuthenticationCharge> TlsAgreements::take_charge(const ChallengeKey& key) {
    const auto at = agreements_.find(key);
    return at == agreements_.end() ? std::nullopt : std::exchange(at->second.charge, std::nullopt);
}

void TlsAgreements::erase(const ChallengeKey& key) {
    agreements_.erase(key);
    erase_refusal(key);
}

void TlsAgreements::erase_refusal(const ChallengeKey& key) {
    const auto at = refusals_.find(key);
    if (at == refusals_.end()) return;
    oldest_.erase(at->second.order);
    refusals_.erase(at);
}

void TlsAgreements::put_refusal(const ChallengeKey& key, std::string security_server, TimePoint expires) {
    constexpr std::size_t kLongestImpi = 253;  // TS 23.003 §2.2, RFC 7542 §2.4: what is longer is no phone's
    if (key.impi.value.size() > kLongestImpi || limit_ == 0) return;
    erase_refusal(key);
    if (refusals_.size() >= limit_) {
        const ChallengeKey first = oldest_.begin()->second;
        erase_refusal(first);
    }
    oldest_[++last_order_] = key;
    refusals_.emplace(key, Refusal{std::move(security_server), expires, last_order_});
}

const std::string* TlsAgreements::find_refusal(const ChallengeKey& key) const {
    const auto at = refusals_.find(key);
    return at == refusals_.end() || at->second.expires <= clock_.now() ? nullptr : &at->second.security_server;
}

const TlsAgreement* TlsAgreements::find(const ChallengeKey& key) const {
    const auto at = agreements_.find(key);
    return at == agreements_.end() || at->second.expires <= clock_.now() ? nullptr : &at->second;
}

}  // namespace gmgate::daemon
