// Coroutines for straight-line flows on the Loop: Task<T>, Tasks (a set that owns running flows), sleep, Mailbox.
//
// A Task is lazy and owned by whoever awaits it. A flow that nobody awaits lives in a Tasks; destroying the Tasks
// destroys every suspended flow with all that it awaits, and every awaiter ends its registrations in its destructor.
// Never co_await a call with a braced aggregate argument: g++ 12 destroys it twice.
#pragma once

#include "loop.h"

#include <coroutine>
#include <deque>
#include <exception>
#include <list>
#include <optional>
#include <utility>

namespace gmgate::peers {

namespace detail {
struct FinalAwaiter {
    bool await_ready() const noexcept { return false; }
    template <class Promise>
    std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> done) const noexcept {
        const auto next = done.promise().continuation;
        return next ? next : std::noop_coroutine();
    }
    void await_resume() const noexcept {}
};
struct PromiseBase {
    std::coroutine_handle<> continuation;
    std::suspend_always initial_suspend() const noexcept { return {}; }
    FinalAwaiter final_suspend() const noexcept { return {}; }
    [[noreturn]] void unhandled_exception() const noexcept { std::terminate(); }
};
}  // namespace detail

template <class T = void>
class [[nodiscard]] Task {
public:
    struct promise_type : detail::PromiseBase {
        std::optional<T> value;
        Task get_return_object() { return Task(std::coroutine_handle<promise_type>::from_promise(*this)); }
        template <class U>
        void return_value(U&& result) {
            value.emplace(std::forward<U>(result));
        }
    };
    Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    Task& operator=(Task&&) = delete;
    ~Task() {
        if (handle_) handle_.destroy();
    }
    bool await_ready() const noexcept { return false; }
    std::coroutine_handle<> await_suspend(std::coroutine_handle<> awaiting) noexcept {
        handle_.promise().continuation = awaiting;
        return handle_;
    }
    T await_resume() { return std::move(*handle_.promise().value); }

private:
    explicit Task(std::coroutine_handle<promise_type> handle) : handle_(handle) {}
    std::coroutine_handle<promise_type> handle_;
};

template <>
class [[nodiscard]] Task<void> {
public:
    struct promise_type : detail::PromiseBase {
        Task get_return_object() { return Task(std::coroutine_handle<promise_type>::from_promise(*this)); }
        void return_void() const noexcept {}
    };
    Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    Task& operator=(Task&&) = delete;
    ~Task() {
        if (handle_) handle_.destroy();
    }
    bool await_ready() const noexcept { return false; }
    std::coroutine_handle<> await_suspend(std::coroutine_handle<> awaiting) noexcept {
        handle_.promise().continuation = awaiting;
        return handle_;
    }
    void await_resume() const noexcept {}

private:
    friend class Tasks;
    explicit Task(std::coroutine_handle<promise_type> handle) : handle_(handle) {}
    std::coroutine_handle<promise_type> handle_;
};

/// Owns flows that run on their own.
class Tasks {
public:
    /// Starts the flow now; it runs until its first suspension before this returns.
    void spawn(Task<void> task) {
        std::erase_if(running_, [](const Task<void>& t) { return t.handle_.done(); });
        running_.push_back(std::move(task));
        running_.back().handle_.resume();
    }
    void clear() { running_.clear(); }

private:
    std::list<Task<void>> running_;
};

/// co_await sleep_for(loop, 1s)
class Sleep {
public:
    Sleep(Loop& loop, Duration delay) : loop_(loop), delay_(delay) {}
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> awaiting) {
        timer_ = loop_.after(delay_, [awaiting] { awaiting.resume(); });
    }
    void await_resume() const noexcept {}

private:
    Loop& loop_;
    Duration delay_;
    Timer timer_;
};
[[nodiscard]] inline Sleep sleep_for(Loop& loop, Duration delay) { return {loop, delay}; }

/// A queue with one reader: `std::optional<T> item = co_await mailbox.take(deadline)`; nothing when the time is over.
template <class T>
class Mailbox {
public:
    explicit Mailbox(Loop& loop) : loop_(loop) {}
    Mailbox(const Mailbox&) = delete;
    Mailbox& operator=(const Mailbox&) = delete;

    void put(T item) {
        items_.push_back(std::move(item));
        if (waiting_) waiting_->wake();
    }
    [[nodiscard]] bool empty() const { return items_.empty(); }

    class Take {
    public:
        Take(Mailbox& box, Clock::time_point deadline) : box_(box), deadline_(deadline) {}
        Take(const Take&) = delete;
        ~Take() {
            if (box_.waiting_ == this) box_.waiting_ = nullptr;
        }
        bool await_ready() const noexcept { return !box_.items_.empty(); }
        void await_suspend(std::coroutine_handle<> awaiting) {
            awaiting_ = awaiting;
            box_.waiting_ = this;
            timer_ = box_.loop_.after(deadline_ - Clock::now(), [awaiting] { awaiting.resume(); });
        }
        std::optional<T> await_resume() {
            if (box_.waiting_ == this) box_.waiting_ = nullptr;
            if (box_.items_.empty()) return std::nullopt;
            std::optional<T> out(std::move(box_.items_.front()));
            box_.items_.pop_front();
            return out;
        }
        // Resumes from the loop, never from inside put(): the caller of put() keeps its own state consistent.
        void wake() {
            timer_ = box_.loop_.after(Duration::zero(), [awaiting = awaiting_] { awaiting.resume(); });
        }

    private:
        Mailbox& box_;
        Clock::time_point deadline_;
        std::coroutine_handle<> awaiting_;
        Timer timer_;
    };
    [[nodiscard]] Take take(Clock::time_point deadline) { return Take(*this, deadline); }

private:
    Loop& loop_;
    std::deque<T> items_;
    Take* waiting_ = nullptr;
};

}  // namespace gmgate::peers
