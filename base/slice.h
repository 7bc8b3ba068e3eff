// A walk over very much, in slices: the loop serves others between them.
#pragma once

#include <chrono>

#include <asio/post.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>

#include "base/task.h"

namespace gmgate {

/// `if (slice.is_over()) co_await slice.pause();` after each step. No reference into anything that others change may be
/// held then.
class Slice {
public:
    using Clock = std::chrono::steady_clock;
    explicit Slice(std::chrono::milliseconds length = std::chrono::milliseconds{4}) : length_(length) {}

    /// Looks at the clock at every 32nd step only.
    bool is_over() { return ++steps_ % 32 == 0 && Clock::now() - begun_ >= length_; }
    /// Goes on when everybody else who is ready has had a turn.
    Task<void> pause() {
        co_await asio::post(co_await asio::this_coro::executor, asio::use_awaitable);
        begun_ = Clock::now();
        ++pauses_;
    }
    unsigned pauses() const { return pauses_; }

private:
    std::chrono::milliseconds length_;
    Clock::time_point begun_ = Clock::now();
    unsigned steps_ = 0, pauses_ = 0;
};

}  // namespace gmgate
