// Calling into code that might throw, without letting it kill the loop or vanish without a trace.
#pragma once

#include <chrono>
#include <exception>
#include <functional>
#include <utility>

#include <asio/any_io_executor.hpp>
#include <asio/co_spawn.hpp>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>

#include "base/log.h"
#include "base/task.h"

namespace gmgate {

/// Logs an exception that reached the loop: out of memory, or our own fault, never a peer's.
inline void log_exception(const char* where, const std::exception_ptr& exception) noexcept {
    try {
        try {
            std::rethrow_exception(exception);
        } catch (const std::exception& e) {
            log::error("handler-threw", {{"where", where}, {"what", e.what()}});
        } catch (...) {
            log::error("handler-threw", {{"where", where}, {"what", "unknown"}});
        }
    } catch (...) {  // no memory for the line either
        return;
    }
}

/// Starts a flow that nobody awaits.
inline void spawn(const asio::any_io_executor& executor, Task<> task, const char* where) {
    asio::co_spawn(executor, std::move(task), [where](const std::exception_ptr& exception) {
        if (exception) log_exception(where, exception);
    });
}

namespace detail {
inline Task<> begin_again(std::function<Task<>()> begin, const char* where) {
    for (;;) {
        std::exception_ptr thrown;
        try {
            co_await begin();
        } catch (...) {
            thrown = std::current_exception();
        }
        if (!thrown) co_return;
        log_exception(where, thrown);
        asio::steady_timer pause(co_await asio::this_coro::executor, std::chrono::seconds{1});
        asio::error_code stopped;
        co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, stopped));
        if (stopped) co_return;
    }
}
}  // namespace detail

/// Starts a flow that the process cannot do without, such as the accepting of connections: when it throws (out of
/// memory) it is begun again a second later. `begin` makes it; what it needs has to live as long as the flow.
inline void spawn_lasting(const asio::any_io_executor& executor, std::function<Task<>()> begin, const char* where) {
    spawn(executor, detail::begin_again(std::move(begin), where), where);
}

/// Runs a handler that belongs to someone else; false when it threw.
template <class F>
bool guarded(const char* where, F&& f) {
    try {
        std::forward<F>(f)();
        return true;
    } catch (...) {
        log_exception(where, std::current_exception());
        return false;
    }
}

/// Runs a loop to its end. An exception that nobody caught (out of memory, where Asio has no place for it) ends what
/// threw it, and not the process.
template <class Loop>
void run_guarded(Loop& loop) {
    while (!guarded("loop", [&] { loop.run(); })) {}
}

}  // namespace gmgate
