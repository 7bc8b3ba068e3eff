#include "daemon/reg_event/reg_event.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>

#include "base/log.h"
#include "base/random.h"
#include "base/spawn.h"
#include "daemon/rules/header_rules.h"

namespace gmgate::daemon {

using sip::HeaderId;

namespace {

constexpr seconds kAsked{600000};  // TS 24.229 §5.2.3: longer than any registration
constexpr seconds kLook{3600};
constexpr seconds kRefreshSpread{600};
constexpr std::size_t kDigits = 16;
/// With our tag behind it. A notifier that knows subscriptions by Contact instead of by dialog (RFC 6665 §4.2.1) would
/// take those of two IMPIs with the same public identity for one, and end the first: Kamailio 5.6.
constexpr std::string_view kContactUser = "reg-event-";

seconds up_to(seconds most) {
    return seconds{static_cast<std::int64_t>(random_u64() % static_cast<std::uint64_t>(most.count() + 1))};
}

std::optional<std::uint64_t> number_of(std::string_view digits) {
    std::uint64_t number = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number, 16);
    return error == std::errc{} && end == digits.data() + digits.size() ? std::optional(number) : std::nullopt;
}

}  // namespace

RegEvents::RegEvents(asio::any_io_executor executor, const Config& config, Table& table, Expiry& expiry, CoreLink& core,
                     Counters& counters, const Clock& clock)
    : executor_(std::move(executor)),
      config_(config),
      table_(table),
      expiry_(expiry),
      core_(core),
      counters_(counters),
      clock_(clock),
      pace_(clock, kPerSecond),
      run_(random_u64()) {}

// ------------------------------------------------------------------------------------------------------------
// subscriptions

void RegEvents::registered(const Registration& registration) {
    if (is_emergency_contact(registration.key) || registration.impus.empty()) return;
    const auto [at, is_new] = subscriptions_.try_emplace(registration.key.impi);
    Subscription& subscription = at->second;
    if (is_new) {
        subscription.impu = registration.impus.front().value;
        begin_dialog(*at);
        ask_at(subscription, clock_.now());
        return sweep();
    }
    if (!subscription.waits_for_register) return;
    subscription.waits_for_register = false;
    subscription.impu = registration.impus.front().value;
    ask_at(subscription, std::max(clock_.now(), subscription.not_before));
}

RegEvents::Entry* RegEvents::find(CallNumber call) {
    const auto at = by_call_.find(call);
    return at == by_call_.end() ? nullptr : at->second;
}

// Sixteen digits for the dialog, sixteen for this run of the process.
std::string RegEvents::call_id(const Subscription& subscription) const {
    return fmt::format("{:016x}{:016x}", subscription.call, run_);
}

RegEvents::Entry* RegEvents::find(std::string_view text) const {
    if (text.size() != 2 * kDigits || number_of(text.substr(kDigits)) != run_) return nullptr;
    const auto call = number_of(text.substr(0, kDigits));
    const auto at = call ? by_call_.find(*call) : by_call_.end();
    return at == by_call_.end() ? nullptr : at->second;
}

// And will be for that time; the network ends no emergency registration.
const Registration* RegEvents::registered_as(const Impi& impi, seconds left) {
    for (const Registration* r : table_.find_by_impi(impi))
        if (!is_emergency_contact(r->key) && !r->ended && r->expires > clock_.now() + left) return r;
    return nullptr;
}

// What is known of a former dialog is forgotten; a SUBSCRIBE that is under way finds its subscription no more. The
// identity that was the default then may have ended.
void RegEvents::begin_dialog(Entry& entry) {
    Subscription& s = entry.second;
    if (const auto* user = registered_as(entry.first); user != nullptr && !user->impus.empty())
        s.impu = user->impus.front().value;
    due_.erase({s.due, s.call});
    s.due = TimePoint::max();
    by_call_.erase(s.call);
    s.call = random_u64();
    s.tag = random_u64();
    by_call_[s.call] = &entry;
    s.their_tag = s.target = s.route = {};
    s.cseq = s.their_cseq = 0;
    s.version.reset();
    s.under_way = s.wants_full = false;
    s.until = {};
}

void RegEvents::put(Subscription& subscription, TimePoint due) {
    due_.erase({subscription.due, subscription.call});
    subscription.due = due;
    due_.insert({due, subscription.call});
}

// At the latest every hour it is looked at: a subscription may last a week, its user may have left.
void RegEvents::ask_at(Subscription& subscription, TimePoint when) {
    subscription.ask_at = when;
    put(subscription, std::min(when, clock_.now() + kLook + up_to(kRefreshSpread)));
}

// After a failure, or an end that the S-CSCF wanted: an adversary that ends each subscription at once gets few of them.
void RegEvents::again(Subscription& s, const Ending& ending) {
    if (s.stood_from != TimePoint{} && clock_.now() - s.stood_from >= long_enough(s.failures)) {
        s.failures = 0;
        s.is_told = false;
    }
    s.stood_from = {};
    const seconds wait = wait_before_retry(ending, s.failures, random_u64());
    s.failures = static_cast<std::uint8_t>(std::min(s.failures + 1, 100));
    s.not_before = clock_.now() + wait;
    s.waits_for_register = ending.wish == Wish::on_register;
    ask_at(s, s.waits_for_register ? TimePoint::max() : s.not_before);
}

// A failure is logged once, until a subscription has stood for a while again: what follows is counted.
bool RegEvents::is_news(Subscription& s) { return !std::exchange(s.is_told, true); }

std::string RegEvents::next_try(const Subscription& s) const {
    if (s.waits_for_register) return "when the user registers again";
    const auto wait = std::chrono::duration_cast<seconds>(s.not_before - clock_.now());
    return fmt::format("in {} s", std::max(wait, seconds{0}).count());
}

void RegEvents::forget(Entry& entry) {
    due_.erase({entry.second.due, entry.second.call});
    by_call_.erase(entry.second.call);
    subscriptions_.erase(Impi{entry.first});
}

Task<void> RegEvents::run() {
    asio::steady_timer timer(co_await asio::this_coro::executor);
    for (;;) {
        const bool is_behind = !due_.empty() && due_.begin()->first <= clock_.now();
        timer.expires_after(std::chrono::milliseconds{is_behind ? 50 : 1000});
        asio::error_code stopped;
        co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, stopped));
        if (stopped) co_return;
        sweep();
    }
}

void RegEvents::sweep() {
    while (!due_.empty() && due_.begin()->first <= clock_.now())
        if (!look_at(*find(due_.begin()->second))) return;
}

// False when it is due and has to wait for its turn.
bool RegEvents::look_at(Entry& entry) {
    Subscription& s = entry.second;
    const bool wanted = is_registered(entry.first);
    if (!wanted && s.their_tag.empty()) {
        forget(entry);
        return true;
    }
    if (wanted && s.ask_at > clock_.now()) {
        ask_at(s, s.ask_at);
        return true;
    }
    if (under_way_ >= kAtOnce || !pace_.take()) return false;
    due_.erase({s.due, s.call});
    s.due = TimePoint::max();
    s.under_way = true;
    ++under_way_;
    spawn(executor_, subscribe(s.call, wanted ? kAsked : seconds{0}), "reg-event");
    return true;
}

// ------------------------------------------------------------------------------------------------------------
// SUBSCRIBE

std::string RegEvents::subscribe_text(const Entry& entry, seconds expires, sip::Transport transport,
                                      const CoreSide& side) const {
    const Subscription& s = entry.second;
    // The same in the whole dialog, whichever element takes it.
    const std::string own = fmt::format("<sip:{}>", core_.side().uri_host);
    std::string text = fmt::format("SUBSCRIBE {} SIP/2.0\r\nVia: SIP/2.0/{} {};branch={}\r\nMax-Forwards: 70\r\n",
                                   s.target.empty() ? s.impu : s.target, sip::to_string(transport), side.via_host,
                                   sip::Transactions::new_branch());
    if (!s.route.empty()) text += fmt::format("Route: {}\r\n", s.route);
    text += fmt::format("From: {};tag={:016x}\r\nTo: <{}>{}{}\r\nCall-ID: {}\r\nCSeq: {} SUBSCRIBE\r\n", own, s.tag,
                        s.impu, s.their_tag.empty() ? "" : ";tag=", s.their_tag, call_id(s), s.cseq);
    text += fmt::format(
        "Contact: <sip:{}{:016x}@{}>\r\nP-Asserted-Identity: {}\r\nEvent: reg\r\nAccept: application/reginfo+xml\r\nExpires: {}\r\n",
        kContactUser, s.tag, side.uri_host, own, expires.count());
    if (s.their_tag.empty()) text += fmt::format("P-Charging-Vector: {}\r\n", charging_vector(config_.core.orig_ioi));
    return text + "Content-Length: 0\r\n\r\n";
}

Task<Result<sip::OwnedMessage>> RegEvents::ask(const Entry& asked, seconds expires) {
    const auto first = sip::NameAddr::parse(sip::Split(asked.second.route, ',').next().value_or(""));
    std::string first_route = first ? std::string(first->uri) : std::string();
    std::vector<std::string> no_service_route;
    Result<std::vector<Target>> targets =
        co_await core_.targets_for(std::move(first_route), std::move(no_service_route));
    if (!targets) co_return std::unexpected(targets.error());
    CoreAttempts attempts(
        core_, std::move(*targets),
        [&](sip::Transport transport, const CoreSide& side) { return subscribe_text(asked, expires, transport, side); },
        Traffic::phones);
    for (;;) {
        auto sent = co_await attempts.next();
        if (!sent) co_return std::unexpected(sent.error());
        auto response = co_await (*sent)->next();
        while (response && (*response)->status() < 200) response = co_await (*sent)->next();
        if (!attempts.should_try_again(response)) co_return response;
    }
}

Task<void> RegEvents::subscribe(CallNumber call, seconds expires) {
    Entry* entry = find(call);
    if (entry != nullptr) {
        ++entry->second.cseq;
        const Entry asked = *entry;  // no reference into the table survives an await
        const Result<sip::OwnedMessage> response = co_await ask(asked, expires);
        entry = find(call);
        if (entry != nullptr) {
            entry->second.under_way = false;
            if (expires.count() != 0) answered(*entry, response);
            else if (!is_registered(entry->first)) forget(*entry);
            else {  // it has come back
                begin_dialog(*entry);
                ask_at(entry->second, clock_.now());
            }
        }
    }
    --under_way_;
    sweep();
}

void RegEvents::answered(Entry& entry, const Result<sip::OwnedMessage>& response) {
    if (response && (*response)->status() < 300) return accepted(entry, **response);
    counters_.add(Counter::reg_event_failed);
    Subscription& s = entry.second;
    const Ending ending = response ? after_refusal(**response) : Ending{};
    if (!s.their_tag.empty() && (ending.ends_dialog || s.until <= clock_.now())) begin_dialog(entry);
    again(s, ending);
    if (!is_news(s)) return;
    const std::string reason = response ? fmt::format("{} to SUBSCRIBE", (*response)->status()) : response.error().text;
    log::notice("reg-event-failed",
                {{"impi", entry.first.value}, {"reason", reason}, {"next-try", next_try(s)}, {"why", kUnnoticed}});
}

void RegEvents::accepted(Entry& entry, const sip::Message& response) {
    Subscription& s = entry.second;
    const bool is_refresh = !s.their_tag.empty();
    const auto expires = sip::parse_u32(response.value(HeaderId::expires));
    const seconds granted = expires ? std::min(seconds{*expires}, kAsked) : kAsked;
    if (granted.count() == 0) {
        counters_.add(Counter::reg_event_failed);
        return ended(entry, {.is_terminated = true});
    }
    take_dialog(s, response);
    s.until = clock_.now() + granted;
    if (s.stood_from == TimePoint{}) s.stood_from = clock_.now();
    if (!is_refresh) {
        counters_.add(Counter::reg_event_subscribed);
        log::info("reg-event-subscribed",
                  {{"impi", entry.first.value}, {"impu", s.impu}, {"expires", granted.count()}});
    }
    const seconds after = refresh_after(granted);
    ask_at(s, clock_.now() + std::max(after - up_to(std::min(after / 10, kRefreshSpread)), kShortestRefresh));
}

// RFC 3261 §12.1.2, §12.2.1.2: the tag, the target and, from the first answer, the route set in reverse.
void RegEvents::take_dialog(Subscription& s, const sip::Message& response) {
    if (const auto contact = sip::NameAddr::parse(response.value(HeaderId::contact)))
        s.target = std::string(contact->uri);
    if (!s.their_tag.empty()) return;
    s.their_tag = std::string(sip::tag_of(response, HeaderId::to));
    auto route = values_of(response, HeaderId::record_route);
    std::ranges::reverse(route);
    s.route = fmt::format("{}", fmt::join(route, ", "));
}

// ------------------------------------------------------------------------------------------------------------------
// which NOTIFY is ours

// A dialog of a process before us is told by our Contact.
bool RegEvents::is_ours(const sip::Message& request) const {
    if (request.method() != sip::Method::notify) return false;
    if (find(request.value(HeaderId::call_id)) != nullptr) return true;
    const auto uri = sip::Uri::parse(request.request_uri());
    const auto address = uri && uri->user.starts_with(kContactUser) ? Address::parse(uri->host) : std::nullopt;
    const Port port = uri && uri->port.value != 0 ? uri->port : Port{5060};
    return address && config_.core.listens_at(Endpoint{*address, port});
}

}  // namespace gmgate::daemon
