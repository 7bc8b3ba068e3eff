// Who a phone is towards the core: P-Preferred-Identity in, P-Asserted-Identity out (C-61, RFC 3325).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"
#include "sip/message/edit.h"
#include "sip/message/message.h"

namespace gmgate::daemon {

/// True when both URIs name one identity: scheme and host case-insensitive, user part as it stands, tel numbers without
/// visual separators (RFC 3261 §19.1.4, RFC 3966 §4); parameters play no part.
bool is_same_identity(std::string_view a, std::string_view b);

/// True when `wildcarded`, an entry of P-Associated-URI such as `sip:pbx-!.*!@home.example`, covers `uri`: what stands
/// between the exclamation marks is an extended regular expression (TS 23.003 §13.4A, TS 24.229 §5.2.6.3.3). False for
/// an entry without them.
bool covers_identity(std::string_view wildcarded, std::string_view uri);

/// The identity that assert_identity() asserts; nullopt when it asserts none.
std::optional<std::string> asserted_identity(const sip::Message& message, const std::vector<Impu>& registered);

/// Replaces P-Preferred-Identity by P-Asserted-Identity: the registered identity that it names (or that
/// a wildcarded one covers), else the first registered one that is no wildcard. The UE's own P-Asserted-Identity must
/// be removed by strip_untrusted. Nothing is asserted when `registered` is empty.
void assert_identity(sip::Edit& edit, const sip::Message& message, const std::vector<Impu>& registered);

/// For a response of the called phone: asserts the identity under which it was called (P-Called-Party-ID of the
/// request, C-72), else as above.
void assert_called_identity(sip::Edit& edit, const sip::Message& response, std::string_view called_party,
                            const std::vector<Impu>& registered);

}  // namespace gmgate::daemon
