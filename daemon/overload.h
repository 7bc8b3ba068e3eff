// How late the loop is: when a handler or the machine keeps it from its timers, new work is refused before old work
// starves.
#pragma once

#include <chrono>

#include "base/clock.h"
#include "base/task.h"
#include "daemon/observe/histogram.h"

namespace gmgate::daemon {

/// One loop, one thread. Overloaded from the moment that the loop is `limit` late until it is less than half of that
/// late.
class LoopWatch {
public:
    LoopWatch(const Clock& clock, milliseconds limit) : clock_(clock), limit_(limit), due_(clock.now()) {}

    /// Looks ten times a second; ends with the loop.
    Task<void> run();
    /// Asked for each new request, also in the turn in which the loop wakes up late.
    bool is_overloaded();
    /// Twice the limit late: refusing strangers was not enough. As is_overloaded().
    bool is_far_behind();
    /// How late it was, ten times a second.
    const Histogram& lateness() const { return lateness_; }

private:
    void look(milliseconds late);

    const Clock& clock_;
    milliseconds limit_;
    TimePoint due_;  ///< when run() wants to wake up next
    bool is_running_ = false;
    bool overloaded_ = false, far_behind_ = false;
    Histogram lateness_;
};

}  // namespace gmgate::daemon
