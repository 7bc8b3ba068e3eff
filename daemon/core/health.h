// Which elements of the core answer: learnt from every request and from OPTIONS.
#pragma once

#include <cstddef>
#include <map>
#include <string_view>

#include "base/clock.h"
#include "base/endpoint.h"

namespace gmgate::daemon {

/// Bounded: beyond `limit` elements no new one is remembered (it is then simply tried).
class Health {
public:
    /// `rest`: how long an element that failed is left alone before ordinary requests try it again; an answer ends it
    /// at once.
    explicit Health(const Clock& clock, seconds rest = seconds{60}, std::size_t limit = 1024)
        : clock_(&clock), rest_(rest), limit_(limit) {}

    bool is_down(const Endpoint& element) const;
    /// No connection, or 503. True when it was up before.
    bool failed(const Endpoint& element);
    /// What was sent to it at `since` was never answered. Counts as a failure only when nothing else was answered
    /// either since then: else some datagrams were lost, or an element behind it is silent. True when it was up before
    /// and is down now.
    bool silent(const Endpoint& element, TimePoint since);
    /// Any other answer, at this moment. True when it was down before.
    bool answered(const Endpoint& element);
    std::size_t size() const { return down_until_.size(); }

private:
    const Clock* clock_;
    seconds rest_;
    std::size_t limit_;
    std::map<Endpoint, TimePoint> down_until_, answered_at_;
};

}  // namespace gmgate::daemon
