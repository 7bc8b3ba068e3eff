// Whether the elements of the core can be reached from here: a route, and an answer.
#pragma once

#include <chrono>
#include <vector>

#include "base/task.h"
#include "daemon/preflight/finding.h"

namespace gmgate::daemon {

/// Looks names up, asks each address once for its route, and sends OPTIONS over UDP or opens a connection over TCP and
/// TLS; all at the same time, for `patience` altogether. Any answer is a good one. Blocks: for a program that does
/// nothing else.
Task<std::vector<Finding>> check_next_hops(const Config& config, std::chrono::milliseconds patience);

}  // namespace gmgate::daemon
