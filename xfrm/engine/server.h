// The engine's side of the protocol: requests in, checked, done by an xfrm::Kernel, answered. Runs in gmgate-xfrmd's
// worker.
#pragma once

#include <functional>
#include <memory>

#include <asio/any_io_executor.hpp>

#include "base/task.h"
#include "xfrm/engine/rules.h"
#include "xfrm/engine/sealer.h"
#include "xfrm/engine/socket.h"
#include "xfrm/kernel.h"
#include "xfrm/netlink/monitor.h"

namespace gmgate::xfrm {

/// Serves one socket. One loop. What breaks the protocol or the rules is refused whole, counted and reported; a request
/// is begun only while the other end is there, so that nothing is done for a gmgated that has died. Destroy it before
/// the kernel and only when the loop has stopped.
class EngineServer {
public:
    struct Handlers {
        /// A request was refused by the engine itself: which, and why. For the log; not called more than
        /// kReportsPerSecond times a second.
        std::function<void(const char* request, const std::string& why)> on_refused;
        /// The other end is gone.
        std::function<void(std::string why)> on_closed;
    };
    static constexpr int kReportsPerSecond = 5;

    EngineServer(asio::any_io_executor executor, int descriptor, EngineRules rules, Kernel& kernel, Handlers handlers);
    /// From now on sets are sealed and sealed ones installed: both outlive the server.
    void seal_with(const Sealer& sealer, KeyedKernel& keyed);
    ~EngineServer();

    /// Says GM_READY and serves from now on.
    void start(std::string_view engine);
    /// Passes an event on. When gmgated does not read, events give way to one events_lost.
    void event(const KernelEvent& event);
    EngineCounters counters() const;

private:
    struct Impl;
    std::shared_ptr<Impl> impl_;  // shared with the coroutines of its requests
};

}  // namespace gmgate::xfrm
