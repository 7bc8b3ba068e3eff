// Time as a dependency, so that tests can hold it still.
#pragma once

#include <chrono>

namespace gmgate {

using TimePoint = std::chrono::steady_clock::time_point;
using std::chrono::milliseconds;
using std::chrono::seconds;

class Clock {
public:
    virtual ~Clock() = default;
    /// Monotonic; for lifetimes and time-outs.
    virtual TimePoint now() const { return std::chrono::steady_clock::now(); }
    /// Wall clock; for what is shown to people and for the kernel's SA lifetimes, which count in wall-clock seconds.
    virtual std::chrono::system_clock::time_point wall() const { return std::chrono::system_clock::now(); }
};

}  // namespace gmgate
