// The system calls of gmgated, reviewed one by one.
#pragma once

#include <span>

#include "base/confine.h"

namespace gmgate::daemon {

/// From traced runs of integration suites (strace -D -ff before gmgated), with what the same libraries use on their
/// rare paths, each group with its reason. No suite meets a refusal.
std::span<const std::span<const SystemCall>> gmgated_system_calls();

}  // namespace gmgate::daemon
