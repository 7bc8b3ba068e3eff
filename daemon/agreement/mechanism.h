// Which mechanism a phone gets: a pure function of its offer and the interface's policy (B-32, B-111, G-13). Nothing of
// the UE's order or q values counts.
#pragma once

#include <expected>
#include <string>
#include <vector>

#include "base/algorithms.h"
#include "daemon/config/config.h"
#include "sip/message/sec_agree.h"
#include "xfrm/sa.h"

namespace gmgate::daemon {

enum class MechanismKind { none, ipsec_3gpp, tls };
std::string_view to_string(MechanismKind kind);

/// What the decision depends on besides the offer.
struct Policy {
    bool ipsec = false;  ///< ipsec-3gpp allowed here: by sec-agree-pref and because a profile is configured
    bool tls = false;
    bool tls_first = false;
    Confidentiality confidentiality = Confidentiality::preferred;
    std::vector<AlgorithmPair> preference;  ///< of the profile
    /// What `mod` of the phone's entry must be: of a phone behind NAT udp_enc_tun, where the profile has it (B-80,
    /// B-111); over SAs the mode that they have (B-84).
    xfrm::Mode mode = xfrm::Mode::transport;

    /// Policy of an interface on an address with that profile (null: none). `over_tls`: the request came over TLS
    /// already (G-16).
    static Policy of(const SipInterface& interface, const ImsAkaProfile* profile, bool over_tls = false);
    /// The pairs that this policy may choose, most preferred first.
    std::vector<AlgorithmPair> allowed_pairs() const;
};

struct Choice {
    MechanismKind mechanism = MechanismKind::none;
    AlgorithmPair algorithms;  ///< ipsec-3gpp
    sip::Ipsec3gpp offer;      ///< the phone's entry that was chosen: its SPIs and ports
    std::string rule;          ///< one sentence for people: by which rule
    xfrm::Mode mode = xfrm::Mode::transport;
};

/// Nothing usable in the offer: the sentence says why, entry by entry ("hmac-md5-96/null: not allowed by the profile").
struct NoCommonMechanism {
    std::string why;
};

/// Whether some ipsec-3gpp entry is of mode UDP-enc-tun.
bool offers_udp_enc_tun(const sip::SecurityList& offer);

/// First pair of the policy's own list that the offer has (B-32).
std::expected<Choice, NoCommonMechanism> choose(const sip::SecurityList& offer, const Policy& policy);

/// The gateway's SPIs and ports of a set, as Security-Server tells them.
struct OwnParameters {
    Spi spi_pc, spi_ps;
    Port port_pc, port_ps;
};
/// Value of Security-Server for a choice: the one mechanism, or the whole list with the chosen one first and distinct q
/// (G-1).
std::string security_server(const Choice& choice, const Policy& policy, const SipInterface& interface,
                            const OwnParameters& own);
/// Value for 494 and 421: what this interface supports, without SPIs and ports, distinct q (G-14, A-11). Empty when
/// nothing.
std::string supported_mechanisms(const Policy& policy);

}  // namespace gmgate::daemon
