// The messages of traced users, decrypted, in a bounded ring: what `gmctl trace` draws and Wireshark reads. Nothing is
// kept of users whom nobody traces, and no key is ever kept: ck, ik and digest responses are blotted out before a
// message is stored.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/types.h"
#include "sip/transport/transport.h"

namespace gmgate::daemon {

struct TracedMessage {
    std::uint64_t number = 0;  ///< grows by one for each message kept
    std::chrono::system_clock::time_point time;
    Impi impi;   ///< the user that it is kept for
    Impi owner;  ///< the phone at the access side's end, as far as its SAs or TLS connection tell: another one in a
                 ///< call between two phones
    bool outward = false;  ///< sent by the gateway
    bool core_side = false;
    sip::Transport transport = sip::Transport::udp;
    Endpoint source, destination;
    std::string protection;  ///< "clear", "ESP set 7", "TLS connection 3"
    std::string bytes;       ///< blotted
};

struct TraceLimits {
    std::size_t users = 64;        ///< traced at once
    std::size_t messages = 10000;  ///< of all users together; the oldest give way
    std::size_t octets = 32 * 1024 * 1024;
    std::size_t calls = 4096;  ///< Call-IDs remembered as a traced user's
};

struct TraceCounters {
    std::uint64_t kept = 0, forgotten = 0;
};

/// `bytes` with the values of ck, ik, response, rspauth, cnonce-response and passwords replaced by the same number of
/// 'x', so that lengths stay true.
std::string blotted(std::string_view bytes);

class MessageTrace {
public:
    using Handler = std::function<void(const TracedMessage&)>;
    using Subscription = std::shared_ptr<Handler>;

    MessageTrace(const Clock& clock, TraceLimits limits) : clock_(clock), limits_(limits) {}

    /// False at the limit of users.
    bool start(const Impi& impi);
    /// Also forgets what was kept of it.
    void stop(const Impi& impi);
    bool is_on() const { return !users_.empty() || sink_ != nullptr; }
    std::vector<Impi> users() const;
    /// Since when it is traced; nullopt: it is not.
    std::optional<std::chrono::system_clock::time_point> since(const Impi& impi) const;

    /// What the gateway knows about a message: whose flow it came over or goes to, and whether that is the core's side.
    struct Context {
        std::optional<Impi> owner;  ///< of the set or TLS connection
        bool core_side = false;
        std::string protection;
    };
    /// Keeps the message when it is a traced user's: by its flow, by its Call-ID, by the identity that it names.
    void see(bool outward, const sip::Flow& flow, std::string_view bytes, const Context& context);

    /// Oldest first; those with a number above `after`.
    std::vector<TracedMessage> of(const Impi& impi, std::uint64_t after = 0) const;
    Subscription on_message(Handler handler);
    /// Gets every message of every user, traced or not (HEP export). nullptr: none.
    void set_sink(Handler sink) { sink_ = std::move(sink); }
    const TraceCounters& counters() const { return counters_; }

private:
    std::optional<Impi> whose(std::string_view bytes, const Context& context);
    void remember_call(const std::string& call_id, const Impi& impi);

    const Clock& clock_;
    TraceLimits limits_;
    std::map<Impi, std::chrono::system_clock::time_point> users_;  ///< since when
    std::deque<TracedMessage> messages_;
    std::size_t octets_ = 0;
    std::unordered_map<std::string, Impi> calls_;
    std::deque<std::string> call_order_;
    std::vector<std::weak_ptr<Handler>> handlers_;  // owned by the subscribers
    Handler sink_;
    std::uint64_t last_ = 0;
    TraceCounters counters_;
};

}  // namespace gmgate::daemon
