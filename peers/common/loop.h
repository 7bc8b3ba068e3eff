// A small single-threaded event loop on epoll: descriptors, timers, signals. Everything registered is a handle whose
// destruction ends the registration; a callback may destroy any handle, its own included.
#pragma once

#include "fd.h"

#include <chrono>
#include <csignal>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

namespace gmgate::peers {

using Clock = std::chrono::steady_clock;
using Duration = Clock::duration;

class Loop;

/// A descriptor being watched. Does not own the descriptor and must be destroyed before it is closed.
class Watch {
public:
    Watch() = default;
    ~Watch() { stop(); }
    Watch(Watch&& other) noexcept { *this = std::move(other); }
    Watch& operator=(Watch&& other) noexcept;
    void stop();
    /// Also wake up when the descriptor can be written to.
    void want_write(bool on);

private:
    friend class Loop;
    Loop* loop_ = nullptr;
    int fd_ = -1;
    std::uint64_t id_ = 0;
};

/// One deadline.
class Timer {
public:
    Timer() = default;
    ~Timer() { stop(); }
    Timer(Timer&& other) noexcept { *this = std::move(other); }
    Timer& operator=(Timer&& other) noexcept;
    void stop();

private:
    friend class Loop;
    Loop* loop_ = nullptr;
    std::pair<Clock::time_point, std::uint64_t> key_;
};

class Loop {
public:
    struct Ready {
        bool readable = false;
        bool writable = false;
    };

    Loop();
    Loop(const Loop&) = delete;
    Loop& operator=(const Loop&) = delete;

    [[nodiscard]] Watch watch(int fd, std::function<void(Ready)> callback);
    /// Calls once after the delay; zero means at the next turn of the loop, in order of registration.
    [[nodiscard]] Timer after(Duration delay, std::function<void()> callback);
    /// Routes signals of this process to a callback; they are blocked for ordinary delivery from now on.
    void on_signals(std::initializer_list<int> signals, std::function<void(int)> callback);
    void run();
    void stop() { stopped_ = true; }

private:
    friend class Watch;
    friend class Timer;
    [[nodiscard]] int run_due_timers();

    Fd epoll_;
    Fd signal_fd_;
    Watch signal_watch_;
    std::uint64_t next_id_ = 1;
    bool stopped_ = false;
    // shared_ptr: a callback that destroys its own Watch must stay alive until it returns.
    std::unordered_map<std::uint64_t, std::shared_ptr<std::function<void(Ready)>>> watches_;
    std::map<std::pair<Clock::time_point, std::uint64_t>, std::function<void()>> timers_;
};

}  // namespace gmgate::peers
