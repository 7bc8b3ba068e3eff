#include "daemon/core/busy.h"

#include <algorithm>
#include <charconv>
#include <string_view>

namespace gmgate::daemon {
namespace {

constexpr seconds kWindow{10};           // what is called lately
constexpr std::size_t kEnough = 5;       // answers that a share is made of when no Retry-After was given
constexpr seconds kShortRest{5};         // without Retry-After; doubled each time that the rest was not long enough
constexpr seconds kLongestRest{60};      // whatever Retry-After says: it may be that of an element behind it
constexpr seconds kProbePatience{32};    // 64*T1: after that the one that was to find out has found nothing
constexpr milliseconds kAskAlone{2000};  // so long an element that asked for rest gets nothing besides the probe

}  // namespace

const Busy::Element* Busy::find(const Endpoint& element) const {
    const auto at = elements_.find(element);
    return at == elements_.end() ? nullptr : &at->second;
}

Busy::Element* Busy::watch(const Endpoint& element) {
    const TimePoint now = clock_->now();
    auto at = elements_.find(element);
    if (at == elements_.end()) {
        if (elements_.size() >= limit_)
            std::erase_if(elements_, [&](const auto& entry) {
                return entry.second.rest.count() == 0 && entry.second.since + kWindow <= now;
            });
        if (elements_.size() >= limit_) return nullptr;
        at = elements_.emplace(element, Element{.since = now}).first;
    }
    Element& known = at->second;
    if (now - known.since > kWindow) {
        known.since = now;
        known.answers = known.refusals = 0;
    }
    return &known;
}

bool Busy::is_probed(const Element& element, milliseconds patience) const {
    return element.probed_at && clock_->now() < *element.probed_at + patience;
}

bool Busy::take_rest(Element& element, std::optional<seconds> retry_after) {
    const bool was_resting = element.rest.count() != 0;
    const bool is_early = was_resting && !element.probed_at;  // to what was sent before the rest
    if (is_early && !retry_after) return false;
    const seconds longer = was_resting ? std::min(2 * element.rest, kLongestRest) : kShortRest;
    const seconds rest = retry_after ? std::clamp(*retry_after, seconds{1}, kLongestRest) : longer;
    const TimePoint until = clock_->now() + rest;
    element.rest_until = is_early ? std::max(element.rest_until, until) : until;
    element.rest = rest;
    element.has_asked = retry_after.has_value();
    element.probed_at.reset();
    return !was_resting;
}

bool Busy::refused(const Endpoint& element, std::optional<seconds> retry_after) {
    Element* known = watch(element);
    if (known == nullptr) return false;
    ++known->refusals;
    const std::size_t all = known->answers + known->refusals;
    const bool is_share = 2 * known->refusals >= all && all >= (retry_after ? 1 : kEnough);
    return (is_share || known->rest.count() != 0) && take_rest(*known, retry_after);
}

bool Busy::refused_ping(const Endpoint& element, std::optional<seconds> retry_after) {
    Element* known = watch(element);
    if (known == nullptr) return false;
    ++known->refusals;
    return take_rest(*known, retry_after);
}

bool Busy::answered(const Endpoint& element) {
    Element* known = watch(element);
    if (known == nullptr) return false;
    ++known->answers;
    if (known->rest.count() == 0 || !known->probed_at) return false;
    *known = Element{.since = clock_->now(), .answers = 1};
    return true;
}

void Busy::sending(const Endpoint& element) {
    const auto at = elements_.find(element);
    if (at == elements_.end() || at->second.rest.count() == 0) return;
    if (clock_->now() >= at->second.rest_until && !is_probed(at->second, kProbePatience))
        at->second.probed_at = clock_->now();
}

bool Busy::is_resting(const Endpoint& element) const {
    const Element* known = find(element);
    return known != nullptr && known->rest.count() != 0 &&
           (clock_->now() < known->rest_until || is_probed(*known, kProbePatience));
}

bool Busy::asked_for_rest(const Endpoint& element) const {
    const Element* known = find(element);
    return known != nullptr && known->rest.count() != 0 && known->has_asked &&
           (clock_->now() < known->rest_until || is_probed(*known, kAskAlone));
}

std::optional<seconds> retry_after_of(std::string_view value) {
    const std::size_t begin = value.find_first_not_of(" \t");
    if (begin == std::string_view::npos) return std::nullopt;
    std::uint32_t number = 0;
    const auto [end, error] = std::from_chars(value.data() + begin, value.data() + value.size(), number);
    if (error == std::errc::result_out_of_range) return kLongestRest;
    if (error != std::errc{}) return std::nullopt;
    return seconds{number};
}

}  // namespace gmgate::daemon
