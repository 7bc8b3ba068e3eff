// Whether two contact URIs name one binding, however a registrar has written the second.
#pragma once

#include <optional>

#include "base/endpoint.h"
#include "sip/message/headers.h"

namespace gmgate::daemon {

/// How surely a URI of a registrar names the contact that was asked for.
enum class UriFit {
    other,
    by_source,  ///< it has the address and port that the REGISTER came from (rport)
    same,       ///< RFC 3261 §19.1.4 for user, host and port
};
/// Users are compared without escapes, hosts as addresses where they are addresses; a port that is not told is 5060.
/// `source`: where the REGISTER came from, when it is known.
UriFit uri_fit(const sip::Uri& asked, const sip::Uri& listed, const std::optional<Endpoint>& source);

}  // namespace gmgate::daemon
