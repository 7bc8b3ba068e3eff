#include "daemon/reg_event/reg_event.h"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>

#include "base/log.h"
#include "base/random.h"
#include "base/spawn.h"
#include "daemon/rules/from_ue_checks.h"
#include "daemon/rules/header_rules.h"
#include "sip/message/edit.h"

namespace gmgate::daemon {

using sip::HeaderId;

namespace {

constexpr seconds kAsked{600000};  // TS 24.229 §5.2.3: longer than any registration
constexpr seconds kRetry{60};      // after a failure, doubled up to
constexpr seconds kLongestRetry{1800};
constexpr seconds kLook{3600};
/// With our tag behind it. A notifier that knows subscriptions by Contact instead of by dialog (RFC 6665 §4.2.1) would
/// take those of two IMPIs with the same public identity for one, and end the first: Kamailio 5.6.
constexpr std::string_view kContactUser = "reg-event";

bool is_same_contact(const RegInfoContact& contact, std::string_view uri, std::string_view instance) {
    if (!instance.empty() && !contact.instance.empty()) return contact.instance == instance;
    const auto a = sip::Uri::parse(contact.uri), b = sip::Uri::parse(uri);
    return a && b && a->user == b->user && sip::same_token(a->host, b->host) && a->port == b->port;
}

/// Value of the first field with that name or compact form, "" when there is none.
std::string_view value_named(const sip::Message& message, std::string_view name, std::string_view compact) {
    for (std::size_t i = 0; i < message.field_count(); ++i) {
        const sip::HeaderField field = message.field(i);
        if (sip::same_token(field.name, name) || (!compact.empty() && sip::same_token(field.name, compact)))
            return field.value;
    }
    return {};
}

std::optional<seconds> granted_in(const sip::Message& response) {
    const auto value = sip::parse_u32(response.value(HeaderId::expires));
    return value ? std::optional(seconds{*value}) : std::nullopt;
}

}  // namespace

std::optional<ContactNews> news_of(const RegInfo& info, std::string_view contact_uri, std::string_view instance) {
    bool has_ended = false, is_active = false;
    ContactNews news;
    for (const RegInfoRegistration& registration : info.registrations) {
        if (registration.contacts.empty() && registration.is_terminated) has_ended = true;  // the whole of it
        for (const RegInfoContact& contact : registration.contacts) {
            if (!is_same_contact(contact, contact_uri, instance)) continue;
            if (!contact.is_active || registration.is_terminated) {
                has_ended = true;
                continue;
            }
            is_active = true;
            if (contact.expires && (!news.expires || *contact.expires < *news.expires)) news.expires = contact.expires;
        }
    }
    if (!has_ended && !is_active) return std::nullopt;
    news.is_terminated = has_ended && !is_active;
    return news;
}

seconds refresh_after(seconds granted) {
    return granted > seconds{1200} ? granted - seconds{600} : std::max(granted / 2, seconds{1});
}

RegEvents::RegEvents(asio::any_io_executor executor, const Config& config, Table& table, Expiry& expiry, CoreLink& core,
                     Counters& counters, const Clock& clock)
    : executor_(std::move(executor)),
      config_(config),
      table_(table),
      expiry_(expiry),
      core_(core),
      counters_(counters),
      clock_(clock) {}

// ------------------------------------------------------------------------------------------------------------
// subscriptions

void RegEvents::registered(const Registration& registration) {
    if (is_emergency_contact(registration.key) || registration.impus.empty() ||
        by_impi_.contains(registration.key.impi))
        return;
    start(registration.key.impi, registration.impus.front().value);
}

void RegEvents::start(const Impi& impi, const std::string& impu) {
    auto made = std::make_unique<Subscription>();
    made->impi = impi;
    made->impu = impu;
    made->call_id = random_hex(16);
    made->our_tag = random_hex(8);
    const std::string call_id = made->call_id;
    by_impi_[impi] = call_id;
    subscriptions_.emplace(call_id, std::move(made));
    spawn(executor_, subscribe(call_id, kAsked), "reg-event");
}

RegEvents::Subscription* RegEvents::find(const std::string& call_id) {
    const auto at = subscriptions_.find(call_id);
    return at == subscriptions_.end() ? nullptr : at->second.get();
}

void RegEvents::schedule(Subscription& subscription, seconds after) {
    subscription.refresh_at = clock_.now() + after;
    look_again(subscription);
}

// At the latest every hour: a subscription may last a week, its user may have left.
void RegEvents::look_again(Subscription& subscription) {
    subscription.due = std::min(subscription.refresh_at, clock_.now() + kLook);
    due_.push({subscription.due, subscription.call_id});
}

void RegEvents::forget(const std::string& call_id) {
    const auto at = subscriptions_.find(call_id);
    if (at == subscriptions_.end()) return;
    if (const auto known = by_impi_.find(at->second->impi); known != by_impi_.end() && known->second == call_id)
        by_impi_.erase(known);
    subscriptions_.erase(at);
}

Task<void> RegEvents::run() {
    asio::steady_timer timer(co_await asio::this_coro::executor);
    for (;;) {
        timer.expires_after(seconds{1});
        asio::error_code stopped;
        co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, stopped));
        if (stopped) co_return;
        sweep();
    }
}

void RegEvents::sweep() {
    while (!due_.empty() && due_.top().when <= clock_.now()) {
        const Due due = due_.top();
        due_.pop();
        Subscription* subscription = find(due.call_id);
        if (subscription == nullptr || subscription->due != due.when || subscription->under_way)
            continue;  // put off, or gone
        const bool is_wanted = !table_.find_by_impi(subscription->impi).empty();
        if (!is_wanted && subscription->their_tag.empty()) {
            forget(due.call_id);
            continue;
        }
        if (is_wanted && subscription->refresh_at > clock_.now()) {
            look_again(*subscription);
            continue;
        }
        spawn(executor_, subscribe(due.call_id, is_wanted ? kAsked : seconds{0}), "reg-event");
    }
}

std::string RegEvents::subscribe_text(const Subscription& s, seconds expires, sip::Transport transport) const {
    const std::string own = fmt::format("<sip:{}>", core_.uri_host());
    std::string text = fmt::format("SUBSCRIBE {} SIP/2.0\r\nVia: SIP/2.0/{} {};branch={}\r\nMax-Forwards: 70\r\n",
                                   s.target.empty() ? s.impu : s.target, sip::to_string(transport), core_.via_host(),
                                   sip::Transactions::new_branch());
    if (!s.route.empty()) text += fmt::format("Route: {}\r\n", fmt::join(s.route, ", "));
    text += fmt::format("From: {};tag={}\r\nTo: <{}>{}{}\r\nCall-ID: {}\r\nCSeq: {} SUBSCRIBE\r\n", own, s.our_tag,
                        s.impu, s.their_tag.empty() ? "" : ";tag=", s.their_tag, s.call_id, s.cseq);
    text += fmt::format(
        "Contact: <sip:{}-{}@{}>\r\nP-Asserted-Identity: {}\r\nEvent: reg\r\nAccept: application/reginfo+xml\r\nExpires: {}\r\n",
        kContactUser, s.our_tag, core_.uri_host(), own, expires.count());
    if (s.their_tag.empty()) text += fmt::format("P-Charging-Vector: {}\r\n", charging_vector(config_.core.orig_ioi));
    return text + "Content-Length: 0\r\n\r\n";
}

Task<void> RegEvents::subscribe(std::string call_id, seconds expires) {
    Subscription* subscription = find(call_id);
    if (subscription == nullptr || subscription->under_way) co_return;
    subscription->under_way = true;
    ++subscription->cseq;
    const Subscription asked = *subscription;  // no reference into the table survives an await
    const bool is_refresh = !asked.their_tag.empty();

    Result<sip::OwnedMessage> response = failure(Reaction::broken, "no element of the core is known");
    std::string first = first_route_uri(asked.route);
    std::vector<std::string> no_service_route;
    Result<std::vector<Target>> targets = co_await core_.targets_for(std::move(first), std::move(no_service_route));
    if (targets) {
        CoreAttempts attempts(
            core_, std::move(*targets),
            [&](sip::Transport transport) { return subscribe_text(asked, expires, transport); }, Traffic::phones);
        bool try_again = true;
        while (try_again) {
            auto sent = co_await attempts.next();
            if (!sent) {
                response = std::unexpected(sent.error());
                break;
            }
            do response = co_await (*sent)->next();
            while (response && (*response)->status() < 200);
            try_again = attempts.should_try_again(response);
        }
    } else {
        response = std::unexpected(targets.error());
    }

    subscription = find(call_id);
    if (subscription == nullptr) co_return;
    subscription->under_way = false;
    if (expires.count() == 0) co_return forget(call_id);
    if (response && (*response)->status() < 300) {
        subscription->failures = 0;
        take_dialog(*subscription, **response);
        const seconds granted = granted_in(**response).value_or(kAsked);
        if (!is_refresh) {
            counters_.add(Counter::reg_event_subscribed);
            log::info("reg-event-subscribed",
                      {{"impi", asked.impi.value}, {"impu", asked.impu}, {"expires", granted.count()}});
        }
        co_return schedule(*subscription, refresh_after(granted));
    }
    counters_.add(Counter::reg_event_failed);
    log::notice("reg-event-failed",
                {{"impi", asked.impi.value},
                 {"reason", response ? fmt::format("{} to SUBSCRIBE", (*response)->status()) : response.error().text},
                 {"why", "network-initiated de-registration of this user goes unnoticed until a later try succeeds"}});
    if (is_refresh) {  // the dialog is lost: another one, at once
        const Impi impi = asked.impi;
        forget(call_id);
        if (!table_.find_by_impi(impi).empty()) start(impi, asked.impu);
        co_return;
    }
    const unsigned doublings = std::min(subscription->failures++, 5u);
    schedule(*subscription, std::min(kRetry * (1 << doublings), kLongestRetry));
}

// RFC 3261 §12.1.2, §12.2.1.2: the tag, the target and, from the first answer, the route set in reverse.
void RegEvents::take_dialog(Subscription& subscription, const sip::Message& response) {
    if (const auto contact = sip::NameAddr::parse(response.value(HeaderId::contact)))
        subscription.target = std::string(contact->uri);
    if (!subscription.their_tag.empty()) return;
    subscription.their_tag = std::string(sip::tag_of(response, HeaderId::to));
    subscription.route.clear();
    for (const std::string_view value : values_of(response, HeaderId::record_route))
        subscription.route.emplace_back(value);
    std::ranges::reverse(subscription.route);
}

// ------------------------------------------------------------------------------------------------------------------
// NOTIFY

bool RegEvents::is_ours(const sip::Message& request) const {
    return request.method() == sip::Method::notify &&
           subscriptions_.contains(std::string(request.value(HeaderId::call_id)));
}

Task<void> RegEvents::notify(std::shared_ptr<sip::ServerTransaction> transaction) {
    const sip::Message& request = transaction->request();
    const auto reply = [&](int status, std::string_view phrase, const std::vector<std::string>& extra = {}) {
        (void)transaction->respond(sip::make_response(request, status, phrase, {}, extra));
    };
    Subscription* subscription = find(std::string(request.value(HeaderId::call_id)));
    const std::string_view their_tag = sip::tag_of(request, HeaderId::from);
    if (subscription == nullptr || sip::tag_of(request, HeaderId::to) != subscription->our_tag ||
        (!subscription->their_tag.empty() && their_tag != subscription->their_tag))
        co_return reply(481, "Subscription Does Not Exist");
    const auto event = value_named(request, "Event", "o");
    if (!sip::same_token(event.substr(0, event.find(';')), "reg"))
        co_return reply(489, "Bad Event", {"Allow-Events: reg"});
    if (!request.body().empty()) {
        const std::string_view type = request.value(HeaderId::content_type);
        if (!sip::same_token(type.substr(0, type.find_first_of("; \t")), "application/reginfo+xml"))
            co_return reply(415, "Unsupported Media Type", {"Accept: application/reginfo+xml"});
        const Result<RegInfo> info = parse_reginfo(request.body());
        if (!info) {
            log::notice("reg-event-bad-notify", {{"impi", subscription->impi.value}, {"reason", info.error().text}});
            co_return reply(400, "Bad reginfo");
        }
        reply(200, "OK");
        // RFC 3680 §4.7: an older document is ignored; a gap before a partial one is closed by asking for a full one.
        const bool is_older = subscription->version && info->version <= *subscription->version;
        const bool has_gap = !info->is_full && subscription->version && info->version > *subscription->version + 1;
        if (!is_older) {
            subscription->version = info->version;
            apply(*subscription, *info);
            if (has_gap) schedule(*subscription, seconds{0});
        }
    } else {
        reply(200, "OK");
    }
    const auto state = value_named(request, "Subscription-State", {});
    if (sip::same_token(state.substr(0, state.find_first_of("; \t")), "terminated")) {  // RFC 6665 §4.1.3
        const Impi impi = subscription->impi;
        const std::string impu = subscription->impu;
        forget(subscription->call_id);
        const auto left = table_.find_by_impi(impi);
        if (std::ranges::any_of(
                left, [&](const Registration* r) { return r->expires > clock_.now() + config_.timers.old_set; }))
            start(impi, impu);
    }
}

void RegEvents::apply(const Subscription& subscription, const RegInfo& info) {
    for (Registration* registration : table_.find_by_impi(subscription.impi)) {
        if (is_emergency_contact(registration->key) || registration->ended) continue;
        const auto news = news_of(info, registration->contact_uri, registration->key.instance);
        if (!news) continue;
        if (news->is_terminated) {  // C-52: the phone may still be told over its SAs, for 64·T1
            counters_.add(Counter::network_deregistered);
            shorten(*registration, config_.timers.old_set, "de-registered by the network");
        } else if (news->expires && clock_.now() + *news->expires + seconds{5} < registration->expires) {
            shorten(*registration, *news->expires, "shortened by the network");
        }
    }
}

void RegEvents::shorten(Registration& registration, seconds left, std::string_view why) {
    const TimePoint until = clock_.now() + left;
    if (registration.expires <= until) return;
    log::notice("registration-shortened",
                {{"impi", registration.key.impi.value}, {"seconds", left.count()}, {"why", why}});
    registration.expires = until;
    ++registration.generation;
    if (registration.tls) expiry_.watch(registration.key, until);
    for (const auto& set : registration.sets) {
        set->expires = std::min(set->expires, until);
        expiry_.watch(set->number, set->expires);
    }
    table_.changed(registration.key);
}

}  // namespace gmgate::daemon
