// What is to be told of each element of the core: since when it is up or down and why, how fast it answers, and whether
// an operator has taken it out.
#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/endpoint.h"
#include "daemon/core/next_hops.h"
#include "daemon/observe/histogram.h"

namespace gmgate::daemon {

/// Bounded: beyond `limit` elements nothing is kept of a new one.
class HopHistory {
public:
    struct Entry {
        bool is_up = true;
        std::chrono::system_clock::time_point since;            ///< of that
        std::string reason;                                     ///< of the last failure; stays when it is up again
        std::optional<std::chrono::microseconds> round_trip{};  ///< of the last OPTIONS
        Histogram responses{};  ///< final answers to requests of phones, INVITE excepted: that rings
    };

    explicit HopHistory(const Clock& clock, std::size_t limit = 1024) : clock_(&clock), limit_(limit) {}

    void went_down(const Endpoint& element, std::string_view why);
    /// An answer to a request of a phone.
    void answered(const Endpoint& element, std::chrono::nanoseconds took);
    /// An answer to an OPTIONS of ours.
    void answered_ping(const Endpoint& element, std::chrono::nanoseconds took);
    /// An answer whose time means nothing, to an INVITE.
    void came_up(const Endpoint& element);
    /// Null: nothing was heard of it yet.
    const Entry* find(const Endpoint& element) const;
    const std::map<Endpoint, Entry>& all() const { return entries_; }

    /// Which of them stand in the configuration now, or are what its names mean: metrics tell of nobody else.
    void forget_current() { current_.clear(); }
    void note_current(const Endpoint& element) {
        if (current_.size() < limit_) current_.insert(element);
    }
    bool is_current(const Endpoint& element) const { return current_.contains(element); }

    /// By "ADDRESS:PORT" or the name in the configuration.
    void disable(const std::string& hop) { disabled_.insert(hop); }
    /// False: it was not disabled.
    bool enable(const std::string& hop) { return disabled_.erase(hop) != 0; }
    bool is_disabled(const Target& target) const {
        return disabled_.contains(target.endpoint.to_string()) ||
               (!target.host.empty() && disabled_.contains(target.host));
    }
    const std::set<std::string>& disabled() const { return disabled_; }

private:
    Entry* at(const Endpoint& element);

    const Clock* clock_;
    std::size_t limit_;
    std::map<Endpoint, Entry> entries_;
    std::set<Endpoint> current_;
    std::set<std::string> disabled_;
};

}  // namespace gmgate::daemon
