// Calling into code that might throw, without letting it kill the loop or vanish without a trace.
#pragma once

#include <exception>

#include <asio/co_spawn.hpp>

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
