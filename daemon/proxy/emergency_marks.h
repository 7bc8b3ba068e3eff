// By what an emergency call in clear is known again after a restart or a take-over: the token in our Record-Route names
// the phone's way, and the marks beside it (dialogs.h) say that it was given out here, for this call. Pure functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "daemon/registrations/registration.h"
#include "sip/transport/transport.h"

namespace gmgate::daemon {

/// A fresh token for a call of the phone that is reached so: "sos", 96 random bits, "-", and the way in hexadecimal:
/// transport, our endpoint, the phone's. It holds no ".", which ends a token (own_names.h).
std::string emergency_token(const sip::Flow& ue);

/// The way in such a token; over TCP and TLS without a connection. nullopt: no such token. Anybody can write one: only
/// a mark proves it.
std::optional<sip::Flow> way_in_token(std::string_view token);

/// Whose dialog the marks are made for, in place of a registered contact: this call of this phone (its tag), and with
/// `target` also the URI that the other end named as its Contact: what a request of the phone may go to (C-84). A
/// contact with an empty IMPI is never registered.
ContactKey emergency_owner(std::string_view token, std::string_view ue_tag, std::string_view target);

}  // namespace gmgate::daemon
