// What a REGISTER and its 200 say about contacts, lifetimes, routes and identities: pure reading.
#pragma once

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "daemon/registrations/registration.h"
#include "sip/message/message.h"
#include "sip/transport/transport.h"

namespace gmgate::daemon {

/// The contact that a REGISTER speaks of: (IMPI, +sip.instance, reg-id); an emergency contact (`sos`, C-81) is one of
/// its own.
ContactKey contact_key(const sip::Message& request, const Impi& impi);
/// False when the two are of different kinds, or both name an instance or reg-id, and not the same one.
bool may_be_same(const ContactKey& a, const ContactKey& b);
/// True when both URIs have the same user and host, with addresses compared as addresses; the port plays no part.
bool have_same_host(std::string_view a, std::string_view b);
/// `Contact: *`: all contacts of the user.
bool contact_is_star(const sip::Message& request);
/// URI of the contact that the request speaks of, "" when there is none.
std::string contact_uri(const sip::Message& request);
/// What a REGISTER asks for: without Contact it only asks what is registered (RFC 3261 §10.2.3), else for time or for
/// an end.
enum class Asks { nothing, time, end };
Asks asks_for(const sip::Message& request);
/// True when the contact asks for a flow of its own (instance and reg-id) and we are the first hop after the phone: our
/// Path then says `ob` (RFC 5626 §5.1); without it a registrar answers 439. `contact` is the registration's, so that
/// Path stays the same however a refresh spells it.
bool asks_for_outbound(const sip::Message& request, const ContactKey& contact);

/// For how long a REGISTER wants its contact registered; RFC 3261's default where it does not say, 0 without a Contact.
std::chrono::seconds time_asked(const sip::Message& request);

/// What a 2xx grants to a REGISTER that asked for time.
struct Grant {
    std::chrono::seconds expires{};
    bool is_listed = true;  ///< false: the 2xx does not name our contact, so `expires` is what was asked for
};
/// Finds the request's contact in the 2xx: by +sip.instance, reg-id and `sos`, then as RFC 3261 §19.1.4 compares URIs,
/// with addresses compared as addresses; a registrar may have written the port that the request came from (`source`).
/// Of several that fit the one with time left counts: an old contact may be named with expires=0 beside it.
Grant granted(const sip::Message& response, const sip::Message& request, const Endpoint& source);
/// All values of Service-Route or another route header, in order.
std::vector<std::string> route_values(const sip::Message& message, sip::HeaderId id);
/// P-Associated-URI's URIs in order; without that header the To URI of the request (C-39).
std::vector<Impu> associated_identities(const sip::Message& response, const sip::Message& request);
/// The public identity that a REGISTER is about: its To URI.
Impu to_identity(const sip::Message& request);
/// So many identities one contact may have, whatever a registrar accepts.
inline constexpr std::size_t kMostIdentities = 64;
/// Registers one more identity on the contact, or one that is there anew: with its To, or with a member of its implicit
/// set (an identity is in one set only, so sets that share a member are one). The others stay as they are; when there
/// are too many, the one that would end first gives way and comes back.
std::optional<RegisteredIdentity> put_identity(Registration& registration, RegisteredIdentity identity);
/// The identity with this To, or in whose implicit set it is, goes; else one whose To is not known. The list may be
/// empty then.
void drop_identity(Registration& registration, const Impu& to);
/// Where an unprotected UDP response goes: with rport to the source port, else to the source address and the sent-by
/// port (RFC 3261 §18.2.2, RFC 3581).
sip::Flow unprotected_reply_flow(const sip::Message& request, const sip::Flow& flow);

}  // namespace gmgate::daemon
