#include "daemon/overload.h"

#include <algorithm>

#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>

#include "base/log.h"
#include "base/log_limit.h"

namespace gmgate::daemon {

namespace {
constexpr milliseconds kPeriod{100};
}

Task<void> LoopWatch::run() {
    asio::steady_timer timer(co_await asio::this_coro::executor);
    is_running_ = true;
    for (;;) {
        due_ = clock_.now() + kPeriod;
        timer.expires_after(kPeriod);
        asio::error_code stopped;
        co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, stopped));
        if (stopped) break;
        lateness_.add(clock_.now() - due_);
        look(std::chrono::duration_cast<milliseconds>(clock_.now() - due_));
        log::tell_held_lines();
    }
    is_running_ = false;
}

bool LoopWatch::is_far_behind() { return is_overloaded() && far_behind_; }

bool LoopWatch::is_overloaded() {
    if (is_running_) {  // the timer may be due, but its turn comes after the sockets that are read now
        const auto late = std::chrono::duration_cast<milliseconds>(clock_.now() - due_);
        if (late > limit_) look(late);
    }
    return overloaded_;
}

void LoopWatch::look(milliseconds late) {
    if (late > 2 * limit_) far_behind_ = true;
    else if (late < limit_) far_behind_ = false;
    if (!overloaded_ && late > limit_) {
        overloaded_ = true;
        log::warning("overload-begins", {{"late-ms", late.count()}, {"limit-ms", limit_.count()}});
    } else if (overloaded_ && late < limit_ / 2) {
        overloaded_ = false;
        log::notice("overload-ends", {{"late-ms", late.count()}});
    }
}

}  // namespace gmgate::daemon
