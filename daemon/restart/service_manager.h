// systemd, when it started us: readiness, the watchdog, and the fd store that keeps sockets for the next process.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "sip/transport/socket.h"

namespace gmgate::daemon {

/// sd_notify(3) in a thread of its own, in order: its socket may block, and the loop must not. Without $NOTIFY_SOCKET
/// every call does nothing. What is stored is a duplicate: our own descriptor may be closed meanwhile.
class ServiceManager {
public:
    ServiceManager();
    /// Sends what is queued.
    ~ServiceManager();
    ServiceManager(const ServiceManager&) = delete;
    ServiceManager& operator=(const ServiceManager&) = delete;

    bool is_there() const { return worker_.joinable(); }
    /// FDSTORE=1. The manager keeps up to FileDescriptorStoreMax descriptors and gives them, with their names, to the
    /// next process.
    void store(const std::string& name, int descriptor);
    /// FDSTOREREMOVE=1.
    void remove(const std::string& name);
    void ready();
    void stopping();
    void alive();
    /// How often alive() is wanted (WatchdogSec=); nullopt: never.
    static std::optional<std::chrono::microseconds> watchdog();
    /// Descriptors that could not be queued: the manager is too slow. Their connections end with this process.
    std::uint64_t not_stored() const { return not_stored_; }

private:
    struct Message {
        std::string text;
        sip::FileDescriptor descriptor;
    };
    static constexpr std::size_t kQueueLimit = 8192;
    void send(std::string text, sip::FileDescriptor descriptor, bool may_drop);
    void run();

    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<Message> queue_;
    bool closing_ = false;
    std::uint64_t not_stored_ = 0;
    std::thread worker_;
};

}  // namespace gmgate::daemon
