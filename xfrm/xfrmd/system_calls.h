// The system calls of the worker, reviewed one by one.
#pragma once

#include <span>

#include "base/confine.h"

namespace gmgate::xfrm {

/// From traced runs of the integration suites (registrations, flushes, a killed worker, lost events, 100,000 SAs), each with its reason.
std::span<const std::span<const SystemCall>> worker_system_calls();

}  // namespace gmgate::xfrm
