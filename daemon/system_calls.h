// The system calls of gmgated, reviewed one by one.
#pragma once

#include <span>

#include "base/confine.h"

namespace gmgate::daemon {

/// From traced runs of the integration suites, each group with its reason.
std::span<const std::span<const SystemCall>> gmgated_system_calls();

}  // namespace gmgate::daemon
