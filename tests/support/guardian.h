// Starts gmgate-xfrmd as gmgated does, for tests and benches that stand at gmgated's end of its sockets.
#pragma once

#include <string>

#include <sys/types.h>

#include "xfrm/engine/frames.h"

namespace gmgate::test {

struct Guardian {
    pid_t process = -1;
    int socket = -1;  ///< the caller's to close; with it the guardian ends
};
/// `engine`: another worker's program, empty for its own. `network`: a namespace's descriptor, -1 for the caller's.
/// Throws when it cannot be started.
Guardian start_guardian(const std::string& program, const std::string& engine,
                        const xfrm::EngineConfiguration& configuration, int network = -1);

}  // namespace gmgate::test
