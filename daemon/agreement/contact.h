// What a REGISTER and its 200 say about contacts, lifetimes, routes and identities: pure reading.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "daemon/registrations/registration.h"
#include "sip/message/message.h"
#include "sip/transport/transport.h"

namespace gmgate::daemon {

/// The contact that a REGISTER speaks of: (IMPI, +sip.instance, reg-id); an emergency contact (`sos`, C-81) is one of
/// its own.
ContactKey contact_key(const sip::Message& request, const Impi& impi);
/// `Contact: *`: all contacts of the user.
bool contact_is_star(const sip::Message& request);
/// URI of the first contact, "" when there is none.
std::string contact_uri(const sip::Message& request);
/// Lifetime that a 200 grants to the request's contact; 0 when the contact is not in it any more (de-registered).
std::chrono::seconds granted_expiry(const sip::Message& response, const sip::Message& request);
/// All values of Service-Route or another route header, in order.
std::vector<std::string> route_values(const sip::Message& message, sip::HeaderId id);
/// P-Associated-URI's URIs in order; without that header the To URI of the request (C-39).
std::vector<Impu> associated_identities(const sip::Message& response, const sip::Message& request);
/// Where an unprotected UDP response goes: with rport to the source port, else to the source address and the sent-by
/// port (RFC 3261 §18.2.2, RFC 3581).
sip::Flow unprotected_reply_flow(const sip::Message& request, const sip::Flow& flow);

}  // namespace gmgate::daemon
