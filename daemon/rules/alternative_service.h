// What a registered phone is told that dials an emergency number as a normal call: to make an emergency call of it,
// over an emergency registration (IR.92 §5.2.1, TS 24.229 §5.2.10, §5.1.3.1).
#pragma once

#include <string_view>

#include "daemon/rules/from_ue_checks.h"

namespace gmgate::daemon {

/// 380 (Alternative Service) with the body of TS 24.229 §7.6. The phone believes it by P-Asserted-Identity, which is
/// our URI in the Path of its REGISTER; Contact tells the kind of emergency service (RFC 5031).
Answer alternative_service(std::string_view path_uri);

}  // namespace gmgate::daemon
