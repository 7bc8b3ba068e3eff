#include "loop.h"

#include <sys/epoll.h>
#include <sys/signalfd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>

namespace gmgate::peers {

Watch& Watch::operator=(Watch&& other) noexcept {
    if (this != &other) {
        stop();
        loop_ = std::exchange(other.loop_, nullptr);
        fd_ = other.fd_;
        id_ = other.id_;
    }
    return *this;
}

void Watch::stop() {
    if (!loop_) return;
    epoll_ctl(loop_->epoll_.get(), EPOLL_CTL_DEL, fd_, nullptr);
    loop_->watches_.erase(id_);
    loop_ = nullptr;
}

void Watch::want_write(bool on) {
    if (!loop_) return;
    epoll_event event{};
    event.events = EPOLLIN;
    if (on) event.events |= EPOLLOUT;
    event.data.u64 = id_;
    epoll_ctl(loop_->epoll_.get(), EPOLL_CTL_MOD, fd_, &event);
}

Timer& Timer::operator=(Timer&& other) noexcept {
    if (this != &other) {
        stop();
        loop_ = std::exchange(other.loop_, nullptr);
        key_ = other.key_;
    }
    return *this;
}

void Timer::stop() {
    if (!loop_) return;
    loop_->timers_.erase(key_);
    loop_ = nullptr;
}

Loop::Loop() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    if (!epoll_) throw std::system_error(errno, std::generic_category(), "epoll_create1");
}

Watch Loop::watch(int fd, std::function<void(Ready)> callback) {
    Watch out;
    out.loop_ = this;
    out.fd_ = fd;
    out.id_ = next_id_++;
    watches_.emplace(out.id_, std::make_shared<std::function<void(Ready)>>(std::move(callback)));
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = out.id_;
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0)
        throw std::system_error(errno, std::generic_category(), "epoll_ctl");
    return out;
}

Timer Loop::after(Duration delay, std::function<void()> callback) {
    Timer out;
    out.loop_ = this;
    out.key_ = {Clock::now() + delay, next_id_++};
    timers_.emplace(out.key_, std::move(callback));
    return out;
}

void Loop::on_signals(std::initializer_list<int> signals, std::function<void(int)> callback) {
    sigset_t set;
    sigemptyset(&set);
    for (const int signal : signals) sigaddset(&set, signal);
    sigprocmask(SIG_BLOCK, &set, nullptr);
    signal_fd_ = Fd(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!signal_fd_) throw std::system_error(errno, std::generic_category(), "signalfd");
    signal_watch_ = watch(signal_fd_.get(), [this, callback = std::move(callback)](Ready) {
        signalfd_siginfo info{};
        while (read(signal_fd_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info))
            callback(static_cast<int>(info.ssi_signo));
    });
}

// Runs what is due and returns the time to the next deadline in milliseconds, -1 when there is none.
int Loop::run_due_timers() {
    // What callbacks register from now on waits for the next turn, so that descriptors get their share.
    const std::pair last{Clock::now(), next_id_};
    while (!timers_.empty() && timers_.begin()->first <= last && !stopped_) {
        auto node = timers_.extract(timers_.begin());
        node.mapped()();
    }
    if (timers_.empty()) return -1;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(timers_.begin()->first.first - Clock::now());
    return static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 60000));
}

void Loop::run() {
    std::array<epoll_event, 64> events{};
    while (!stopped_) {
        const int timeout = run_due_timers();
        if (stopped_) break;
        const int count = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout);
        for (int i = 0; i < count && !stopped_; ++i) {
            const epoll_event& event = events[static_cast<std::size_t>(i)];
            const auto it = watches_.find(event.data.u64);
            if (it == watches_.end()) continue;  // destroyed by an earlier callback of this turn
            const auto callback = it->second;
            (*callback)({(event.events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0,
                         (event.events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0});
        }
    }
}

}  // namespace gmgate::peers
