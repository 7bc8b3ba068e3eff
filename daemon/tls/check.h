// What is wrong with certificates and keys, before anything is started.
#pragma once

#include <string>
#include <vector>

#include "daemon/config/config.h"

namespace gmgate::daemon {

/// One line for each [[tls-profile]] in use whose files are unreadable, expired, not yet valid, or do not belong
/// together: what is wrong, and what would not be served. Empty when all is well.
std::vector<std::string> check_certificates(const Config& config);

}  // namespace gmgate::daemon
