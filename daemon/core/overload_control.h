// Overload control between SIP servers (RFC 7339, loss-based): which share of our requests an element of the core wants
// us to hold back, and how we tell the core the same.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "base/clock.h"
#include "base/endpoint.h"
#include "sip/message/headers.h"
#include "sip/message/message.h"

namespace gmgate::daemon {

/// A request of ours, whose topmost Via is a line of its own, with the offer in that Via (§4.1, §4.2).
std::string with_overload_offer(std::string request);

/// What a server says in our Via.
struct OverloadReport {
    unsigned percent = 0;                                ///< oc: share to hold back
    milliseconds validity{500};                          ///< oc-validity (§4.3); 0: it ends now
    std::pair<std::uint64_t, std::uint64_t> sequence{};  ///< oc-seq (§4.4)
    friend bool operator==(const OverloadReport&, const OverloadReport&) = default;
};
/// Nullopt: no `oc` with a value, another algorithm than loss, no oc-seq, or nonsense.
std::optional<OverloadReport> read_overload_report(const sip::Via& via);

/// A response to a request whose topmost Via offers `oc` and "loss", with our report in that Via; any other response as
/// it is (§5.2: nobody is told who did not offer it).
std::string with_overload_report(std::string response, const OverloadReport& report);

/// What each element asked for last. Bounded: beyond `limit` elements no new one is listened to.
class OverloadControl {
public:
    /// Gives a number from 0 to `most`, both included.
    using Draw = std::function<std::uint64_t(std::uint64_t most)>;
    OverloadControl(const Clock& clock, Draw draw, std::size_t limit = 1024)
        : clock_(&clock), draw_(std::move(draw)), limit_(limit) {}

    /// Takes the report in the topmost Via of a response of that element; older ones than the last are ignored (§5.6).
    void learn(const Endpoint& element, const sip::Message& response);
    /// The share in force, in percent.
    unsigned percent(const Endpoint& element) const;
    /// The dice of §7.2 for one request that may be held back: emergency requests and what belongs to a dialog are not.
    bool must_hold_back(const Endpoint& element) const;

private:
    struct Order {
        OverloadReport report;
        TimePoint until;
    };
    const Clock* clock_;
    Draw draw_;
    std::size_t limit_;
    std::map<Endpoint, Order> orders_;
};

}  // namespace gmgate::daemon
