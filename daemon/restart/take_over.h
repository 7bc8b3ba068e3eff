// Directly from process to process: `gmgated --take-over` asks the one that runs for everything it holds, over a unix
// socket.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <asio/any_io_executor.hpp>

#include "base/error.h"
#include "base/task.h"
#include "daemon/restart/inheritance.h"

namespace gmgate::daemon {

/// A descriptor to hand over; it stays the owner's until the taker has said that it serves.
struct HandedOver {
    std::string name;
    int descriptor;
};

/// The side that gives. While a taker is served the loop stands still on purpose: no byte is read or written by two
/// processes. When the taker does not make it (it ends, or `patience` is over) everything goes on as if nothing had
/// happened.
class TakeOverServer {
public:
    struct Parts {
        std::function<Result<void>()> prepare;              ///< flush everything; an Error refuses the taker
        std::function<std::vector<HandedOver>()> holdings;  ///< what there is to hand over
        std::function<void()> handed_over;                  ///< the taker serves: leave
    };
    TakeOverServer(asio::any_io_executor executor, std::string path, std::chrono::milliseconds patience, Parts parts);
    ~TakeOverServer();
    TakeOverServer(const TakeOverServer&) = delete;
    TakeOverServer& operator=(const TakeOverServer&) = delete;

    /// Binds the path, which a process before may have left (mode 0600, in a folder made with 0700).
    Result<void> open();

private:
    struct State;
    std::shared_ptr<State> state_;  // shared with the wait in flight
};

/// The side that takes. Blocking: the one that gives stands still, too.
class TakeOver {
public:
    /// Asks the process behind `path` and receives what it holds. Reaction::broken: nobody is there; refused: it says
    /// no, and why.
    static Result<TakeOver> ask(const std::string& path, std::chrono::milliseconds patience);
    Inheritance inheritance;
    /// This process serves: the other one leaves. Without it, when this object goes, the other one goes on.
    Result<void> done();

private:
    sip::FileDescriptor channel_;
};

}  // namespace gmgate::daemon
