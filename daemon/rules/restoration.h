// What a phone is told when the core cannot serve it any more: to register anew, which gives it another S-CSCF
// (TS 23.380 §4.4, TS 24.229 §5.2.6.3.2A; C-66).
#pragma once

#include <string_view>

#include "daemon/rules/from_ue_checks.h"
#include "sip/message/message.h"

namespace gmgate::daemon {

/// True for a request without To tag whose Accept allows the body that asks for restoration.
bool understands_restoration(const sip::Message& request);

/// Completes a 504: the phone believes it by P-Asserted-Identity, which is our URI in the Path of its REGISTER
/// (TS 24.229 §5.1.2A.1.6).
void ask_for_restoration(Answer& answer, std::string_view path_uri);

}  // namespace gmgate::daemon
