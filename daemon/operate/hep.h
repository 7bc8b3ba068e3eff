// HEPv3 (Homer Encapsulation Protocol, draft "HEP/EEP v3"): one message with its addresses as a datagram for Homer,
// whose probes on the wire see only ESP.
#pragma once

#include <cstdint>
#include <string>

#include "base/error.h"
#include "daemon/observe/message_trace.h"

namespace gmgate::daemon {

/// The packet; empty when the message does not fit one (64 KiB).
std::string hep_packet(const TracedMessage& message, std::uint32_t capture_id);

/// Sends each message by UDP without waiting; what the socket does not take is dropped and counted.
class HepSender {
public:
    /// Error: the system's words.
    static Result<HepSender> open(const Endpoint& collector, std::uint32_t capture_id);
    HepSender(HepSender&& other) noexcept;
    HepSender& operator=(HepSender&&) = delete;
    ~HepSender();
    void send(const TracedMessage& message);
    std::uint64_t sent() const { return sent_; }
    std::uint64_t dropped() const { return dropped_; }

private:
    HepSender(int fd, std::uint32_t capture_id) : fd_(fd), capture_id_(capture_id) {}
    int fd_ = -1;
    std::uint32_t capture_id_;
    std::uint64_t sent_ = 0, dropped_ = 0;
};

}  // namespace gmgate::daemon
