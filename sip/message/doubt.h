// What different readers of one request could take differently, in the header fields that decide identity, route or
// protection. A request in which there is such a doubt is refused: what we check is then what everybody behind us sees.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "sip/message/message.h"

namespace gmgate::sip {

struct Doubt {
    std::string_view field;  ///< canonical name of the header field, or "Request-URI"
    std::string why;         ///< a sentence without a full stop
};

/// The first doubt in a request of a phone; nullopt when a strict reader, one that takes the first and one that takes
/// the last of several values all see the same. Beyond what Message::parse demands of every message (line ends, single
/// fields, Content-Length):
///   - Contact (but in REGISTER and unknown methods), Content-Type, Expires, Event, Refer-To, Session-Expires and the
///   like stand once;
///   - From, To: one address, no comma or `?` outside <…>, no `<` in a quoted display name (in REGISTER no
///     backslash), no parameter twice;
///   - Request-URI, Contact, Route, P-Asserted-/P-Preferred-Identity: URIs that parse, no parameter twice (also not
///     escaped); Route in <…>; at most one identity per scheme (RFC 3325 §9); `Contact: *` alone, and no expires, q,
///     +sip.instance or reg-id twice;
///   - Via: no parameter twice. Call-ID: one word. Max-Forwards: a number up to 255;
///   - Require, Proxy-Require, Supported: tokens. Security-Client, Security-Verify: what SecurityList reads.
/// Of ACK and CANCEL, which nobody can answer or which must not fail, option tags and Security-* are not asked (A-15a).
/// Credentials have their own reader (credentials.h). `is_mirrored`: the
/// Security-Verify is the Security-Server that was sent to this phone, octet for octet, and is not read once more.
std::optional<Doubt> find_doubt(const Message& request, bool is_mirrored = false);

}  // namespace gmgate::sip
