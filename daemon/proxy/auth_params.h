// Taking parameters out of credentials and challenges, whatever their spelling: the key material of a 401 (C-31, H-1) and a UE's own
// claim of integrity protection (C-17, H-2). Works on tokens of the header value and not on a parsed Digest, so that a value that the
// digest parser refuses is cleaned too.
#pragma once

#include <initializer_list>
#include <string_view>
#include <vector>

#include "sip/edit.h"
#include "sip/message.h"

namespace gmgate::daemon {

/// Removes every auth-param whose name is one of `names` from all fields of `id`. A value that still shows one of the names followed
/// by '=' (a missing comma, a quote that never closes) is ambiguous between two readers, so the whole field is removed.
/// The values that were taken out are appended to `taken` (views into the message, unquoted) when it is given.
void remove_auth_params(sip::Edit& edit, const sip::Message& message, sip::HeaderId id, std::initializer_list<std::string_view> names,
                        std::vector<std::string_view>* taken = nullptr);

/// The same, and puts `parameter` ("name=value") at the end of the first value with scheme Digest.
void replace_auth_param(sip::Edit& edit, const sip::Message& message, sip::HeaderId id, std::string_view name,
                        std::string_view parameter);

}  // namespace gmgate::daemon
