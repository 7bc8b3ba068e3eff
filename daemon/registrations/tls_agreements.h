// Phones that were told a Security-Server in clear and have yet to come over TLS (B-94, C-47; RFC 3329 §2.3.1): what
// their Security-Verify must mirror.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "base/clock.h"
#include "daemon/registrations/by_source.h"
#include "daemon/registrations/registration.h"
#include "sip/message/sec_agree.h"

namespace gmgate::daemon {

struct TlsAgreement {
    sip::SecurityList security_client;  ///< as offered
    std::string security_server;        ///< as answered: "tls"
    TimePoint expires{};
    std::optional<AuthenticationCharge> charge{};  ///< of the REGISTER that was challenged
};

/// One for each key of a challenge, bounded; an entry lives as long as a temporary set would (reg-await-auth). At the
/// limit the oldest of the source that has most gives way to the newest. A 494 or
/// 421 in clear is remembered apart: anybody may cause one, so there the oldest gives way, and no phone is refused for
/// it.
class TlsAgreements {
public:
    TlsAgreements(std::size_t limit, const Clock& clock) : limit_(limit), clock_(clock) {}

    /// False when the limit is 0.
    bool put(const ChallengeKey& key, TlsAgreement agreement);
    /// Null when there is none or it has run out.
    const TlsAgreement* find(const ChallengeKey& key) const;
    /// What its REGISTER was charged, the first time that somebody asks.
    std::optional<AuthenticationCharge> take_charge(const ChallengeKey& key);
    void erase(const ChallengeKey& key);
    std::size_t size() const { return agreements_.size(); }

    /// A refusal in clear has told this list.
    void put_refusal(const ChallengeKey& key, std::string security_server, TimePoint expires);
    /// The list that it told; null when there was none, or an agreement came after it, or it has run out.
    const std::string* find_refusal(const ChallengeKey& key) const;
    std::size_t refusals() const { return refusals_.size(); }

private:
    std::size_t limit_;
    const Clock& clock_;
    struct Refusal {
        std::string security_server;
        TimePoint expires{};
        std::uint64_t order = 0;
    };
    void erase_refusal(const ChallengeKey& key);
    struct Entry {
        TlsAgreement agreement;
        std::uint64_t turn = 0;
    };
    void erase_agreement(const ChallengeKey& key);
    void drop_expired();
    void make_room();
    std::map<ChallengeKey, Entry> agreements_;
    BySource<ChallengeKey> by_source_;
    std::map<std::uint64_t, ChallengeKey> by_turn_;  ///< agreements, oldest first
    std::map<ChallengeKey, Refusal> refusals_;
    std::map<std::uint64_t, ChallengeKey> oldest_;  ///< refusals in their order
    std::uint64_t last_order_ = 0;
};

}  // namespace gmgate::daemon
