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

/// `auto guard = co_await lock.acquire(key);` holds the key until the guard is destroyed. The lock must outlive its guards.
template <class Key>
class KeyedLock {
public:
    class Guard {
    public:
        Guard(KeyedLock* owner, Key key) : owner_(owner), key_(std::move(key)) {}
        Guard(Guard&& other) noexcept : owner_(std::exchange(other.owner_, nullptr)), key_(std::move(other.key_)) {}
        Guard& operator=(Guard&&) = delete;
        Guard(const Guard&) = delete;
        ~Guard() {
            if (owner_) owner_->release(key_);
        }

    private:
        KeyedLock* owner_;
        Key key_;
    };

    Task<Guard> acquire(Key key) {
        auto [at, free] = waiting_.try_emplace(key);
        if (!free) {
            // A timer that never fires is Asio's plainest one-shot event; release() cancels it to hand the key over.
            const auto turn = std::make_shared<asio::steady_timer>(co_await asio::this_coro::executor, std::chrono::steady_clock::time_point::max());
            at->second.push_back(turn);
            asio::error_code cancelled;
            co_await turn->async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
        }
        co_return Guard(this, std::move(key));
    }
    std::size_t held() const { return waiting_.size(); }

private:
    void release(const Key& key) {
        const auto at = waiting_.find(key);
        if (at == waiting_.end()) return;
        if (at->second.empty()) {
            waiting_.erase(at);
            return;
        }
        const auto next = at->second.front();
        at->second.pop_front();
        next->cancel();
    }
    std::map<Key, std::deque<std::shared_ptr<asio::steady_timer>>> waiting_;
};

}  // namespace gmgate
