// The system calls of the worker, reviewed one by one.
#pragma once

#include <span>

#include "base/confine.h"

namespace gmgate::xfrm {

/// From traced runs of integration suites, with what the same libraries use on their rare paths, each group with its
/// reason.
std::span<const std::span<const SystemCall>> worker_system_calls();

}  // namespace gmgate::xfrm
