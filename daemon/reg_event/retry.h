// When a subscription is tried again: what the notifier's words ask for (RFC 6665 §4.1.3, RFC 5057), the back-off
// between tries, and the pace of all of them together. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/clock.h"
#include "sip/message/message.h"

namespace gmgate::daemon {

/// Subscription-State (RFC 6665 §8.2.3); views into the value.
struct SubscriptionState {
    bool is_terminated = false;  ///< active and pending are not; nor is a value that nobody defined
    std::string_view reason{};   ///< of terminated; "" when not told
    std::optional<seconds> expires{}, retry_after{};
};
SubscriptionState parse_subscription_state(std::string_view value);

/// What a notifier lets us do next.
enum class Wish {
    at_once,      ///< a new subscription may follow immediately (deactivated, timeout)
    later,        ///< probation, giveup; errors that may pass
    much_later,   ///< errors that are an opinion: 403, 404, 489, 6xx …
    on_register,  ///< not again until the user registers again (rejected, noresource, invariant)
};
struct Ending {
    Wish wish = Wish::later;
    seconds at_least{};        ///< retry-after, Retry-After; at most a day
    bool ends_dialog = false;  ///< RFC 5057 §5.1: the answer ended the subscription that was to be refreshed
};
/// RFC 6665 §4.1.3.
Ending after_termination(const SubscriptionState& state);
/// A final answer of 300 and more to SUBSCRIBE.
Ending after_refusal(const sip::Message& response);

/// A try that failed, or a subscription that did not stand for so long, is a failure; one that stood longer is none.
/// `failures` before it.
seconds long_enough(unsigned failures);
/// The time to the next try: none after the first failure when that may be repeated at once, else a minute, doubled
/// with each failure up to half an hour; never less than `at_least`; a quarter more at most, by `random`.
seconds wait_before_retry(const Ending& ending, unsigned failures, std::uint64_t random);

/// C-51: 600 s before the end, half-way when there are no 1200 s.
seconds refresh_after(seconds granted);
/// An S-CSCF that grants a second is not asked each second.
inline constexpr seconds kShortestRefresh{30};

/// So many a second, in tenths of it: 100,000 subscriptions after a restart go out one after the other.
class Pace {
public:
    Pace(const Clock& clock, std::uint32_t per_second)
        : clock_(clock), per_second_(per_second), full_at_(clock.now()) {}
    /// One more may go now.
    bool take();

private:
    const Clock& clock_;
    std::uint32_t per_second_;
    TimePoint full_at_;  ///< when all tokens will be there again
};

}  // namespace gmgate::daemon
