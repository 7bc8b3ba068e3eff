// Something that one flow waits for.
#pragma once

#include <utility>

#include <asio/any_io_executor.hpp>
#include <asio/async_result.hpp>
#include <asio/use_awaitable.hpp>

#include "base/task.h"
#include "base/turn.h"

namespace gmgate {

/// Wakes the one flow that waits, in the turn of the loop in which it is woken (base/turn.h). Whoever owns it has to
/// wake it before it goes: a flow that waits for nothing is never freed.
class Event {
public:
    explicit Event(asio::any_io_executor executor) : executor_(std::move(executor)) {}

    /// Until the next wake(). One flow at a time.
    Task<> wait() {
        return asio::async_initiate<const asio::use_awaitable_t<>, void()>(
            [this](auto handler) { waiter_ = std::move(handler); }, asio::use_awaitable);
    }
    /// Nothing when nobody waits.
    void wake() {
        if (waiter_) Turn::go_on(executor_, std::exchange(waiter_, nullptr));
    }

private:
    asio::any_io_executor executor_;
    Turn::Work waiter_;
};

}  // namespace gmgate
