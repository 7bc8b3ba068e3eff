// Which elements of the core say that they are overloaded (503), and for how long they are spared.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <string_view>

#include "base/clock.h"
#include "base/endpoint.h"

namespace gmgate::daemon {

/// One 503 is one request's; an element rests when it refuses at least half of what it has answered lately
/// (RFC 3261 §21.5.4). Retry-After says for how long; without it a few refusals are wanted first and the rest is short.
/// After the rest one request, or an OPTIONS of ours, finds out. Bounded: beyond `limit` elements no new one is
/// watched.
class Busy {
public:
    explicit Busy(const Clock& clock, std::size_t limit = 1024) : clock_(&clock), limit_(limit) {}

    /// A 503 to a request, with its Retry-After. True when the element rests from now on and did not before.
    bool refused(const Endpoint& element, std::optional<seconds> retry_after);
    /// A 503 to our own OPTIONS: the element speaks of itself. True as above.
    bool refused_ping(const Endpoint& element, std::optional<seconds> retry_after);
    /// Any other answer. It ends the rest when it is that to what was sent after it. True when it did.
    bool answered(const Endpoint& element);
    /// A request goes there now: the first one after the rest is the one that finds out.
    void sending(const Endpoint& element);

    /// It rests, or somebody is finding out.
    bool is_resting(const Endpoint& element) const;
    /// It rests because it asked for it (Retry-After): nothing that can wait is sent there.
    bool asked_for_rest(const Endpoint& element) const;
    std::size_t size() const { return elements_.size(); }

private:
    struct Element {
        TimePoint since{};  ///< what is counted began then
        std::size_t answers = 0, refusals = 0;
        seconds rest{0};         ///< 0: it does not rest
        TimePoint rest_until{};  ///< valid with a rest
        bool has_asked = false;
        std::optional<TimePoint> probed_at{};
    };
    const Element* find(const Endpoint& element) const;
    Element* watch(const Endpoint& element);
    bool take_rest(Element& element, std::optional<seconds> retry_after);
    bool is_probed(const Element& element, milliseconds patience) const;

    const Clock* clock_;
    std::size_t limit_;
    std::map<Endpoint, Element> elements_;
};

/// Retry-After as it stands in a response: the seconds, what follows is ignored. Nullopt: none, or not readable.
std::optional<seconds> retry_after_of(std::string_view value);

}  // namespace gmgate::daemon
