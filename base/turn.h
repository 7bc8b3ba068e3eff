// One turn of the loop: what has arrived is worked off, then what waits for it goes on, then what is to be sent is
// sent, and only then is the kernel asked for more. Each of these posted to the loop would cost a look at the kernel
// between.
#pragma once

#include <functional>

#include <asio/any_io_executor.hpp>

namespace gmgate {

/// Stands in a handler that the loop calls. The outermost one on the thread runs, when it ends, what was left to it
/// meanwhile: everything of go_on() first, in order, with what that leaves in its turn, then finish().
class Turn {
public:
    using Work = std::move_only_function<void()>;

    Turn();
    ~Turn();
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

    /// At the end of the turn that the thread is in; outside of one it is posted. An exception of it is logged.
    static void go_on(const asio::any_io_executor& executor, Work work);
    /// The same, after all that goes on: for what is better done once for all of them.
    static void finish(const asio::any_io_executor& executor, Work work);

private:
    bool is_outermost_ = true;
};

}  // namespace gmgate
