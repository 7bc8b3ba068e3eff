// HEPv3 (Homer Encapsulation Protocol, draft "HEP/EEP v3"): one message with its addresses as a packet for Homer, whose
// probes on the wire see only ESP.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include <asio/any_io_executor.hpp>

#include "base/error.h"
#include "base/task.h"
#include "daemon/observe/message_trace.h"
#include "sip/transport/transport.h"

namespace gmgate::daemon {

/// What goes with every packet.
struct HepLabels {
    std::uint32_t capture_id = 1;
    std::string auth_key{};  ///< authentication chunk; empty: none
};

/// The packet; empty when the message does not fit one (64 KiB). `correlation`: what messages of one session share;
/// empty: the private identity, if it is known.
std::string hep_packet(const TracedMessage& message, const HepLabels& labels, std::string_view correlation = {});

/// The icid-value of each call (RFC 7315 §4.6), which only the core's side has, by its Call-ID; the last ones.
class IcidMap {
public:
    explicit IcidMap(std::size_t most = 8192) : most_(most) {}
    /// Of the message itself, else of one before with its Call-ID; empty: not known. Valid until the next call.
    std::string_view of(std::string_view bytes);

private:
    std::size_t most_;
    std::unordered_map<std::string, std::string> icids_;
    std::deque<std::string> order_;
};

/// The first line of a file. Error: the file and the reason; also when there is nothing in it, or more than 256 octets.
Result<std::string> read_auth_key(const std::string& path);

struct HepNumbers {
    std::uint64_t sent = 0, dropped = 0;
    bool is_connected = true;  ///< over UDP always
};

/// Sends each message without waiting. By UDP what the socket does not take is dropped; over a stream what does not fit
/// the queue, while the collector is away or slow. Both are counted.
class HepSender {
public:
    /// A stream to the collector: over TCP, or TLS with its handshake done.
    using Connect = std::function<Task<Result<std::unique_ptr<sip::ByteStream>>>()>;
    static constexpr std::size_t kQueue = std::size_t{4} * 1024 * 1024;  ///< octets that wait for a stream

    /// By UDP. Error: the system's words.
    static Result<HepSender> open(const Endpoint& collector, HepLabels labels);
    /// Over a stream, which is opened at once and again whenever it ends, after one second, then two, … up to thirty.
    static HepSender over(const asio::any_io_executor& executor, HepLabels labels, Connect connect);
    HepSender(HepSender&& other) noexcept;
    HepSender& operator=(HepSender&&) = delete;
    ~HepSender();
    void send(const TracedMessage& message);
    HepNumbers numbers() const;

private:
    struct Stream;
    HepSender(int fd, HepLabels labels) : fd_(fd), labels_(std::move(labels)) {}
    static Task<void> run(std::shared_ptr<Stream> stream);
    int fd_ = -1;
    HepLabels labels_;
    IcidMap icids_;
    std::uint64_t sent_ = 0, dropped_ = 0;
    std::shared_ptr<Stream> stream_;  // shared with the coroutine that writes, which may end later
};

}  // namespace gmgate::daemon
