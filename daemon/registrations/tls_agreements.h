// Phones that were told `Security-Server: tls` and have yet to come over TLS (B-94, C-47): what their Security-Verify
// must mirror.
#pragma once

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

/// One per (IMPI, UE address), bounded; an entry lives as long as a temporary set would (reg-await-auth).
class TlsAgreements {
public:
    TlsAgreements(std::size_t limit, const Clock& clock) : limit_(limit), clock_(clock) {}

    /// False at the limit (after those that ran out were dropped).
    bool put(const Impi& impi, const Address& ue, TlsAgreement agreement);
    /// Null when there is none or it has run out.
    const TlsAgreement* find(const Impi& impi, const Address& ue) const;
    void erase(const Impi& impi, const Address& ue) { agreements_.erase({impi, ue}); }
    std::size_t size() const { return agreements_.size(); }

private:
    std::size_t limit_;
    const Clock& clock_;
    std::map<std::pair<Impi, Address>, TlsAgreement> agreements_;
};

}  // namespace gmgate::daemon
