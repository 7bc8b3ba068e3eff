// The process between gmgated and the engine: it starts the worker, and starts it again. Nothing else is in it, so that
// nothing goes wrong in it.
#pragma once

#include <string>

namespace gmgate::xfrm {

/// Takes the configuration from descriptor GM_GUARD_FD, gives up what no worker needs, and keeps one worker running
/// until gmgated's end of that socket is closed. `program`: the worker's program; empty: this one. Returns the status
/// to end with.
int guard(const std::string& program);

}  // namespace gmgate::xfrm
