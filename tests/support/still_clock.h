// A clock that stands still until a test moves it.
#pragma once

#include "base/clock.h"

namespace gmgate::test {

struct StillClock final : Clock {
    TimePoint at{std::chrono::hours{1000}};
    std::chrono::seconds wall_ahead{0};  ///< the wall clock was set forth by that

    TimePoint now() const override { return at; }
    /// The wall shows the same time, counted from its own epoch.
    std::chrono::system_clock::time_point wall() const override {
        return std::chrono::system_clock::time_point{at.time_since_epoch() + wall_ahead};
    }
    void advance(TimePoint::duration by) { at += by; }
};

}  // namespace gmgate::test
