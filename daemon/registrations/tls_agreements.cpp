#include "daemon/registrations/tls_agreements.h"

#include <optional>

namespace gmgate::daemon {

bool TlsAgreements::put(const ChallengeKey& key, TlsAgreement agreement) {
    if (limit_ == 0) return false;
    erase(key);  // the latest list counts
    drop_expired();
    if (agreements_.size() >= limit_) make_room();
    const auto turn = by_source_.add(key.ue, key);
    by_turn_.emplace(turn, key);
    agreements_.emplace(key, Entry{std::move(agreement), turn});
    return true;
}

// All live equally long, so the oldest run out first; each of them is dropped once.
void TlsAgreements::drop_expired() {
    const auto now = clock_.now();
    while (!by_turn_.empty()) {
        const ChallengeKey oldest = by_turn_.begin()->second;
        if (agreements_.at(oldest).agreement.expires > now) break;
        erase_agreement(oldest);
    }
}

void TlsAgreements::make_room() {
    std::optional<ChallengeKey> leaving;
    by_source_.for_each_from_fullest([&](const auto& queue) {
        leaving = queue.begin()->second;
        return false;
    });
    if (leaving) erase_agreement(*leaving);
}

void TlsAgreements::erase_agreement(const ChallengeKey& key) {
    const auto at = agreements_.find(key);
    if (at == agreements_.end()) return;
    by_source_.remove(key.ue, at->second.turn);
    by_turn_.erase(at->second.turn);
    agreements_.erase(at);
}

std::optional<AuthenticationCharge> TlsAgreements::take_charge(const ChallengeKey& key) {
    const auto at = agreements_.find(key);
    return at == agreements_.end() ? std::nullopt : std::exchange(at->second.agreement.charge, std::nullopt);
}

void TlsAgreements::erase(const ChallengeKey& key) {
    erase_agreement(key);
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
    return at == agreements_.end() || at->second.agreement.expires <= clock_.now() ? nullptr : &at->second.agreement;
}

}  // namespace gmgate::daemon
