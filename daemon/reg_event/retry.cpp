#include "daemon/reg_event/retry.h"

#include <algorithm>
#include <array>

#include "sip/message/headers.h"

namespace gmgate::daemon {

namespace {

constexpr seconds kFirstWait{60};
constexpr seconds kLongestWait{1800};
constexpr seconds kStable{300};
constexpr seconds kMostObeyed{86400};  // a longer retry-after would be a way to switch the service off for good

/// Leading digits: Retry-After may have a comment and parameters behind them.
std::optional<seconds> seconds_in(std::string_view value) {
    value = sip::trim(value);
    const auto number = sip::parse_u32(value.substr(0, value.find_first_not_of("0123456789")));
    return number ? std::optional(seconds{*number}) : std::nullopt;
}

seconds waited_for(unsigned failures) {
    if (failures == 0) return seconds{0};
    return std::min(kFirstWait * (1u << std::min(failures - 1, 10u)), kLongestWait);
}

/// RFC 5057 §5.1, RFC 6665 §4.1.2.2: these end the subscription, whatever its time.
bool ends_subscription(int status) {
    constexpr std::array kEnding{404, 405, 408, 410, 416, 480, 481, 482, 483, 484, 485, 489, 501, 604};
    return std::ranges::find(kEnding, status) != kEnding.end();
}

}  // namespace

SubscriptionState parse_subscription_state(std::string_view value) {
    SubscriptionState state;
    sip::ParameterList parts(value);
    const auto word = parts.next();
    if (!word) return state;
    state.is_terminated = sip::same_token(word->name, "terminated");
    while (const auto part = parts.next()) {
        if (sip::same_token(part->name, "reason")) state.reason = part->value;
        else if (sip::same_token(part->name, "expires")) state.expires = seconds_in(part->value);
        else if (sip::same_token(part->name, "retry-after")) state.retry_after = seconds_in(part->value);
    }
    return state;
}

Ending after_termination(const SubscriptionState& state) {
    const auto is = [&](std::string_view reason) { return sip::same_token(state.reason, reason); };
    Ending ending{.wish = Wish::later, .at_least = std::min(state.retry_after.value_or(seconds{0}), kMostObeyed)};
    if (is("deactivated") || is("timeout")) ending.wish = Wish::at_once;
    if (is("rejected") || is("noresource") || is("invariant")) ending.wish = Wish::on_register;
    return ending;
}

Ending after_refusal(const sip::Message& response) {
    const int status = response.status();
    Ending ending{
        .wish = Wish::later,
        .at_least = std::min(seconds_in(response.value(sip::HeaderId::retry_after)).value_or(seconds{0}), kMostObeyed),
        .ends_dialog = ends_subscription(status)};
    constexpr std::array kOpinions{403, 404, 405, 406, 410, 415, 489, 501};
    if (status >= 600 || std::ranges::find(kOpinions, status) != kOpinions.end()) ending.wish = Wish::much_later;
    else if (status == 481) ending.wish = Wish::at_once;
    return ending;
}

seconds long_enough(unsigned failures) { return std::max(kStable, 2 * waited_for(failures)); }

seconds wait_before_retry(const Ending& ending, unsigned failures, std::uint64_t random) {
    seconds wait = waited_for(ending.wish == Wish::at_once ? failures : failures + 1);
    if (ending.wish == Wish::much_later) wait = kLongestWait;
    wait = std::max(wait, ending.at_least);
    return wait + seconds{static_cast<std::int64_t>(random % static_cast<std::uint64_t>(wait.count() / 4 + 1))};
}

seconds refresh_after(seconds granted) {
    return granted > seconds{1200} ? granted - seconds{600} : std::max(granted / 2, seconds{1});
}

bool Pace::take() {
    const TimePoint now = clock_.now();
    const auto one = std::chrono::nanoseconds{1'000'000'000 / per_second_};
    const TimePoint full_at = std::max(full_at_, now) + one;
    if (full_at > now + std::chrono::milliseconds{100}) return false;
    full_at_ = full_at;
    return true;
}

}  // namespace gmgate::daemon
