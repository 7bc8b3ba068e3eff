// Phones that were told a Security-Server in clear and have yet to come over TLS (B-94, C-47; RFC 3329 §2.3.1): what
// their Security-Verify must mirror.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "base/clock.h"
#include "base/endpoint.h"
#include "base/types.h"
#include "sip/message/sec_agree.h"

namespace gmgate::daemon {

struct TlsAgreement {
    sip::SecurityList security_client;  ///< as offered
    std::string security_server;        ///< as answered: "tls"
    TimePoint expires{};
};

/// One per (IMPI, UE address), bounded; an entry lives as long as a temporary set would (reg-await-auth). A 494 or 421
/// in clear is remembered apart: anybody may cause one, so there the oldest gives way, and no phone is refused for it.
class TlsAgreements {
public:
    TlsAgreements(std::size_t limit, const Clock& clock) : limit_(limit), clock_(clock) {}

    /// False at the limit (after those that ran out were dropped).
    bool put(const Impi& impi, const Address& ue, TlsAgreement agreement);
    /// Null when there is none or it has run out.
    const TlsAgreement* find(const Impi& impi, const Address& ue) const;
    void erase(const Impi& impi, const Address& ue);
    std::size_t size() const { return agreements_.size(); }

    /// A refusal in clear has told this list.
    void put_refusal(const Impi& impi, const Address& ue, std::string security_server, TimePoint expires);
    /// The list that it told; null when there was none, or an agreement came after it, or it has run out.
    const std::string* find_refusal(const Impi& impi, const Address& ue) const;
    std::size_t refusals() const { return refusals_.size(); }

private:
    std::size_t limit_;
    const Clock& clock_;
    using Key = std::pair<Impi, Address>;
    struct Refusal {
        std::string security_server;
        TimePoint expires{};
        std::uint64_t order = 0;
    };
    void erase_refusal(const Key& key);
    std::map<Key, TlsAgreement> agreements_;
    std::map<Key, Refusal> refusals_;
    std::map<std::uint64_t, Key> oldest_;  ///< refusals in their order
    std::uint64_t last_order_ = 0;
};

}  // namespace gmgate::daemon
