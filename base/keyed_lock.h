// Serialises coroutines that work on the same key (a contact): first come, first served, one loop, one thread.
#pragma once

#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <utility>

#include <asio/any_io_executor.hpp>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>

#include "base/task.h"

namespace gmgate {

/// `auto guard = co_await lock.acquire(key);` holds the key until the guard is destroyed. The state is shared with the
/// guards: at shutdown suspended coroutines are destroyed by the executor, after the lock's owner.
template <class Key>
class KeyedLock {
    struct State {
        std::map<Key, std::deque<std::shared_ptr<asio::steady_timer>>> waiting;

        void release(const Key& key) {
            const auto at = waiting.find(key);
            if (at == waiting.end()) return;
            if (at->second.empty()) {
                waiting.erase(at);
                return;
            }
            const auto next = at->second.front();
            at->second.pop_front();
            next->cancel();
        }
    };

public:
    class Guard {
    public:
        Guard(std::shared_ptr<State> state, Key key) : state_(std::move(state)), key_(std::move(key)) {}
        Guard(Guard&&) noexcept = default;
        Guard& operator=(Guard&&) = delete;
        Guard(const Guard&) = delete;
        ~Guard() {
            if (state_) state_->release(key_);
        }

    private:
        std::shared_ptr<State> state_;
        Key key_;
    };

    Task<Guard> acquire(Key key) {
        const auto state = state_;
        auto [at, free] = state->waiting.try_emplace(key);
        if (!free) {
            // A timer that never fires is Asio's plainest one-shot event; release() cancels it to hand the key over.
            const auto turn = std::make_shared<asio::steady_timer>(co_await asio::this_coro::executor,
                                                                   std::chrono::steady_clock::time_point::max());
            state->waiting[key].push_back(turn);
            asio::error_code cancelled;
            co_await turn->async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
        }
        co_return Guard(state, std::move(key));
    }
    std::size_t held() const { return state_->waiting.size(); }

private:
    std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace gmgate
