// What the gateway knows of a registered phone: one contact with its sets of SAs, its route and its identities.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/interned.h"
#include "base/patterned_text.h"
#include "base/types.h"
#include "daemon/registrations/authentication_charge.h"
#include "sip/message/sec_agree.h"
#include "sip/transport/door.h"
#include "sip/transport/transport.h"
#include "xfrm/sa.h"
#include "xfrm/spi_pool.h"

namespace gmgate::daemon {

/// TS 33.203 §7.4, C-44.
enum class SetState { temporary, established, old };
std::string_view to_string(SetState state);

/// Four SAs of one agreement. Owned by exactly one Challenge (temporary) or Registration (established, old).
struct SaSet {
    SetNumber number;
    SetState state = SetState::temporary;
    xfrm::SetParameters parameters;
    PatternedText security_server;  ///< value of the header sent in the 401; what Security-Verify must equal
    PatternedText security_client;  ///< SecurityList::to_string() of what the challenged REGISTER had (B-63)
    TimePoint expires{};
    /// When the kernel's hard limit ends its SAs, by the clock that the kernel counts with; the epoch: nobody knows. It
    /// lies behind `expires`, mostly far behind (SaSets::keep_until()).
    std::chrono::system_clock::time_point kernel_limit{};
    bool in_use = false;  ///< outbound traffic goes over it (C-43)
    /// Mode udp_enc_tun: where the NAT has the phone's port 4500 as far as is known.
    Port port_uenc = xfrm::kEncapsulationPort;

    /// With SetParameters::inner: which of its two addresses the phone has inside, once the first message told; from
    /// then on the other one is nobody's.
    std::optional<Address> inner;

    bool is_behind_nat() const { return parameters.mode == xfrm::Mode::udp_enc_tun; }
    /// The phone's ends as its packets have them: inside the tunnel, behind NAT.
    Endpoint ue_client() const { return {inner.value_or(parameters.ue), parameters.port_uc}; }
    Endpoint ue_server() const { return {inner.value_or(parameters.ue), parameters.port_us}; }
    Endpoint gateway_client() const { return {parameters.gateway, parameters.port_pc}; }
    Endpoint gateway_server() const { return {parameters.gateway, parameters.port_ps}; }
    xfrm::SpiPair own_spis() const;
};

/// Names a registration for the life of the process.
using RegistrationNumber = Distinct<std::uint64_t, struct RegistrationNumberTag>;

/// A contact of a phone: outlives addresses and accesses (private identity, +sip.instance, reg-id).
struct ContactKey {
    Impi impi;
    std::string instance;
    std::string reg_id;
    friend auto operator<=>(const ContactKey&, const ContactKey&) = default;
};

/// What the reg-id of an emergency contact begins with: it stands beside the user's others (C-81).
inline constexpr std::string_view kEmergencyRegId = "sos:";
/// C-81, C-82: a contact that registered with the URI parameter `sos`.
inline bool is_emergency_contact(const ContactKey& key) { return key.reg_id.starts_with(kEmergencyRegId); }

/// Whose authentication it is: an emergency contact's stands beside the normal one of the same phone.
struct ChallengeKey {
    Impi impi;
    Address ue;
    bool is_emergency = false;
    friend auto operator<=>(const ChallengeKey&, const ChallengeKey&) = default;
};

/// An authentication in progress, one for each ChallengeKey. It cannot disturb a registration: only its 200 makes it
/// one (B-58).
struct Challenge {
    Impi impi;
    Address ue;
    ContactKey contact;
    std::unique_ptr<SaSet> set;
    std::optional<SetNumber>
        came_over;           ///< the established or old set that carried the first REGISTER; none: it came unprotected
    std::string nonce;       ///< of the core's 401: by it the phone's report of a failure names this challenge (B-42)
    std::string token;       ///< of the Path that the core saw in the first REGISTER
    sip::OwnerId phone;      ///< set by the table: owner of the doors that its SAs make
    std::uint64_t turn = 0;  ///< set by the table: its place among those of its source
    bool finished = false;   ///< answered finally: the set only waits until retransmissions are over
    std::optional<AuthenticationCharge> charge;  ///< none: it cost nothing, or that is given back already

    ChallengeKey key() const { return {impi, ue, is_emergency_contact(contact)}; }
};

/// What the Authorization of a REGISTER says beside the private identity, as far as a refresh may not change it
/// (feature text). Empty: it was not there.
struct AuthorizedAs {
    std::string realm, uri, algorithm;
    bool is_known() const { return !realm.empty() || !uri.empty() || !algorithm.empty(); }
    friend auto operator<=>(const AuthorizedAs&, const AuthorizedAs&) = default;
};

/// The TLS connection of a contact (B-94): the only one over which its user is served.
struct TlsBinding {
    sip::Flow flow;
    sip::SecurityList security_client,
        security_verify;           ///< of the authenticated REGISTER; empty: TLS before any agreement (G-28)
    AuthorizedAs challenged_as{};  ///< what the core's challenge over it asks for, until that is answered; uri empty
};

/// One public identity that was registered on a contact, and what its 200 told (TS 24.229 §5.2.2.1).
struct RegisteredIdentity {
    Impu aor;                 ///< To of its REGISTER; empty: not known (a row of an older version)
    std::vector<Impu> impus;  ///< its implicit set: P-Associated-URI in order; else the To URI
    Interned<std::vector<std::string>> service_route;  ///< name-addr values in order; one for all of an S-CSCF
    TimePoint expires{};
    /// Names of its set by which it was registered before and which no P-Associated-URI holds, as a temporary identity:
    /// a de-REGISTER may name one. Not asserted, not kept over a restart; at most eight.
    std::vector<Impu> former_names{};
    friend bool operator==(const RegisteredIdentity&, const RegisteredIdentity&) = default;
};

/// A registered contact: protected by sets of SAs or by one TLS connection, never both.
struct Registration {
    ContactKey key;
    std::string token;  ///< unforgeable user part of our URI in Path and Record-Route
    std::vector<std::unique_ptr<SaSet>>
        sets;                         ///< at most two, newest last: with a temporary set three per contact (B-22)
    std::unique_ptr<TlsBinding> tls;  ///< bound TLS connection (mechanism tls); most have none
    std::vector<RegisteredIdentity>
        identities;           ///< in the order in which they came; the registration ends with the last
    std::vector<Impu> impus;  ///< of all of them, first = default IMPU; see summarise()
    Interned<std::vector<std::string>> service_route;  ///< of the first of them; see route_for()
    Interned<AuthorizedAs> authorized_as;              ///< of the REGISTER that made the SAs or bound the connection
    std::string contact_uri;
    std::string realm_id;                            ///< sip-interface
    sip::Transport transport = sip::Transport::udp;  ///< that the REGISTER came over
    TimePoint expires{};                             ///< of the identity that lasts longest
    sip::OwnerId phone;                              ///< set by the table: owner of its doors, one for all of a device
    RegistrationNumber number;                       ///< set by the table; never used again
    std::uint64_t generation = 0;                    ///< grows with every change; re-checked after each co_await
    bool ended = false;  ///< de-registered: its sets only wait until the last answer is surely out

    /// The set that outbound requests use; null for a registration over TLS.
    const SaSet* outbound() const;
    SaSet* find(SetNumber number);
    /// `impus`, `service_route` and `expires` from `identities`, when there are any: after each change of that list.
    void summarise();
    /// Service-Route of all of them, one after the other: who may be on the way of their dialogs.
    std::vector<std::string> all_routes() const;
    /// When the first of its identities ends.
    TimePoint first_end() const;
    /// Identities that ended by `time` go, unless that is all of them; how many went.
    std::size_t drop_ended(TimePoint time);
    /// It and its identities end no later than `until`.
    void shorten(TimePoint until);
    /// Our end as the phone reaches it: port_ps of the set in use, or the port of its TLS connection; nullopt when
    /// there is neither.
    std::optional<Endpoint> reached_at() const;
};

}  // namespace gmgate::daemon
