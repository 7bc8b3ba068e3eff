#include "daemon/restart/service_manager.h"

#include <fcntl.h>
#include <systemd/sd-daemon.h>

#include <cstdlib>
#include <utility>

namespace gmgate::daemon {

ServiceManager::ServiceManager() {
    if (std::getenv("NOTIFY_SOCKET")) worker_ = std::thread([this] { run(); });
}

ServiceManager::~ServiceManager() {
    if (!is_there()) return;
    {
        const std::lock_guard guard(mutex_);
        closing_ = true;
        changed_.notify_one();
    }
    worker_.join();
}

// FDPOLL=0: the manager would drop a descriptor that reports an error; which connection is gone is ours to say.
void ServiceManager::store(const std::string& name, int descriptor) {
    if (is_there())
        send("FDSTORE=1\nFDPOLL=0\nFDNAME=" + name, sip::FileDescriptor(::fcntl(descriptor, F_DUPFD_CLOEXEC, 3)), true);
}
void ServiceManager::remove(const std::string& name) {
    if (is_there()) send("FDSTOREREMOVE=1\nFDNAME=" + name, {}, false);
}
void ServiceManager::ready() {
    if (is_there()) send("READY=1\nSTATUS=serving", {}, false);
}
void ServiceManager::stopping() {
    if (is_there()) send("STOPPING=1\nSTATUS=leaving SAs and connections to the next process", {}, false);
}
void ServiceManager::alive() {
    if (is_there()) send("WATCHDOG=1", {}, false);
}

std::optional<std::chrono::microseconds> ServiceManager::watchdog() {
    std::uint64_t microseconds = 0;
    if (sd_watchdog_enabled(0, &microseconds) <= 0) return std::nullopt;
    return std::chrono::microseconds{microseconds};
}

// Removals are never dropped: a name that stays would give a dead connection to the next process. They are bounded by
// what was stored.
void ServiceManager::send(std::string text, sip::FileDescriptor descriptor, bool may_drop) {
    const std::lock_guard guard(mutex_);
    if (may_drop && (queue_.size() >= kQueueLimit || !descriptor.is_open())) {
        ++not_stored_;
        return;
    }
    queue_.push_back({std::move(text), std::move(descriptor)});
    changed_.notify_one();
}

void ServiceManager::run() {
    std::unique_lock lock(mutex_);
    for (;;) {
        changed_.wait(lock, [&] { return closing_ || !queue_.empty(); });
        if (queue_.empty()) return;
        const auto message = std::move(queue_.front());
        queue_.pop_front();
        lock.unlock();
        const int descriptor = message.descriptor.get();
        sd_pid_notify_with_fds(0, 0, message.text.c_str(), message.descriptor.is_open() ? &descriptor : nullptr,
                               message.descriptor.is_open() ? 1 : 0);
        lock.lock();
    }
}

}  // namespace gmgate::daemon
