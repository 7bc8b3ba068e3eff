// What a proxy demands of a request's routing header fields beyond what the parser checks: RFC 3261 §16.3 steps 1 and 2
// (reasonable syntax, URI scheme), with the outcomes of RFC 4475's torture messages. A pure function.
#pragma once

#include <optional>

#include "daemon/rules/from_ue_checks.h"
#include "sip/message/credentials.h"
#include "sip/message/message.h"

namespace gmgate::daemon {

/// nullopt: the request may go on. 416 for a Request-URI of a scheme that IMS does not route (RFC 4475 §3.3.2, §3.3.3);
/// 400 for one that carries header fields (§3.1.2.11: they must not be forwarded) or is no URI, for a Via list with an
/// empty or malformed value (§3.1.2.1), and for a From or To that is no address (§3.1.2.6). What is merely untidy
/// (white space inside <…>, a comma in a bare display name, a strange Date) passes untouched: §3.1.2.12, §3.1.2.14 and
/// §3.1.2.15 allow that, and phones in the field do it.
/// From the core a farther Via (a port 0, an empty value) and a display name without quotes pass.
std::optional<Answer> check_syntax(const sip::Message& request, Sender sender = Sender::phone);

/// 400 for a request of a phone or a stranger in which a field that decides identity, route or protection could be read
/// in two ways (sip/message/doubt.h), or whose credentials could. `why` says which and why. `credentials` are
/// those of this request; `is_mirrored` as for find_doubt().
std::optional<Answer> check_unambiguous(const sip::Message& request, const sip::RequestCredentials& credentials,
                                        bool is_mirrored = false);

}  // namespace gmgate::daemon
