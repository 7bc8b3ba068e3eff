// Credentials and challenges on their way through. A challenge of the core loses its key material, whatever the spelling
// (C-31, H-1): that works on tokens of the header value and not on a parsed Digest, so that a value that the digest
// parser refuses is cleaned too. A phone's credentials are written anew from what was checked (C-17, H-2).
#pragma once

#include <initializer_list>
#include <string_view>
#include <vector>

#include "sip/credentials.h"
#include "sip/edit.h"
#include "sip/message.h"

namespace gmgate::daemon {

/// Removes every auth-param whose name is one of `names` from all fields of `id`. A value that still shows one of the names followed
/// by '=' (a missing comma, a quote that never closes) is ambiguous between two readers, so the whole field is removed.
/// The values that were taken out are appended to `taken` (views into the message, unquoted) when it is given.
void remove_auth_params(sip::Edit& edit, const sip::Message& message, sip::HeaderId id, std::initializer_list<std::string_view> names,
                        std::vector<std::string_view>* taken = nullptr);

/// Writes the credentials of a request anew: the only field of `id` that is left says what `credentials`, which were
/// read from `message`, say, and `indicator` ("integrity-protected=…") when they are Digest and it is not empty. Without
/// credentials no such field is left.
void write_credentials(sip::Edit& edit, const sip::Message& message, sip::HeaderId id,
                       const sip::Credentials& credentials, std::string_view indicator = {});

}  // namespace gmgate::daemon
