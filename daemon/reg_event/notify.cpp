// NOTIFY of the reg event package: what an S-CSCF tells of a user's contacts and of the subscription itself.
#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/log.h"
#include "daemon/reg_event/reg_event.h"
#include "sip/message/edit.h"

namespace gmgate::daemon {

using sip::HeaderId;

namespace {

struct Refusal {
    int status;
    std::string_view phrase;
    std::vector<std::string> extra;
};

std::uint32_t cseq_of(const sip::Message& request) {
    const std::string_view value = sip::trim(request.value(HeaderId::cseq));
    return sip::parse_u32(value.substr(0, value.find_first_of(" \t"))).value_or(0);
}

/// What the request itself is wrong in, whatever the subscription.
std::optional<Refusal> objection_to(const sip::Message& request) {
    const std::string_view event = request.value(HeaderId::event);
    if (!sip::same_token(sip::trim(event.substr(0, event.find(';'))), "reg"))
        return Refusal{489, "Bad Event", {"Allow-Events: reg"}};
    const std::string_view type = request.value(HeaderId::content_type);
    if (!request.body().empty() &&
        !sip::same_token(type.substr(0, type.find_first_of("; \t")), "application/reginfo+xml"))
        return Refusal{415, "Unsupported Media Type", {"Accept: application/reginfo+xml"}};
    return std::nullopt;
}

}  // namespace

Task<void> RegEvents::notify(std::shared_ptr<sip::ServerTransaction> transaction) {
    const sip::Message& request = transaction->request();
    const auto reply = [&](int status, std::string_view phrase, const std::vector<std::string>& extra = {}) {
        (void)transaction->respond(sip::make_response(request, status, phrase, {}, extra));
    };
    Entry* entry = find(request.value(HeaderId::call_id));
    if (entry == nullptr) co_return reply(481, "Subscription Does Not Exist");
    Subscription& s = entry->second;
    if (sip::tag_of(request, HeaderId::to) != fmt::format("{:016x}", s.tag) ||
        (!s.their_tag.empty() && sip::tag_of(request, HeaderId::from) != s.their_tag))
        co_return reply(481, "Subscription Does Not Exist");
    if (const auto refusal = objection_to(request)) co_return reply(refusal->status, refusal->phrase, refusal->extra);
    if (cseq_of(request) < s.their_cseq) co_return reply(500, "Out of Order");  // RFC 3261 §12.2.2
    s.their_cseq = cseq_of(request);
    std::optional<RegInfo> info;
    if (!request.body().empty()) {
        Result<RegInfo> parsed = parse_reginfo(request.body());
        if (!parsed) {
            if (is_news(s))
                log::notice("reg-event-bad-notify", {{"impi", entry->first.value}, {"reason", parsed.error().text}});
            co_return reply(400, "Bad reginfo");
        }
        info = std::move(*parsed);
    }
    reply(200, "OK");
    if (info) take_document(*entry, *info);
    take_state(*entry, parse_subscription_state(request.value(HeaderId::subscription_state)));
    sweep();
}

// RFC 3680 §5.1: an older document is ignored, and a partial one that does not follow the last is taken for what it
// says; either way the whole state is asked for, and taken whatever number it has: the notifier may have started anew.
void RegEvents::take_document(Entry& entry, const RegInfo& info) {
    Subscription& s = entry.second;
    const bool is_whole = s.wants_full && info.is_full;
    const bool is_next = s.version && info.version > *s.version;
    const bool is_gap = !info.is_full && (!s.version || info.version > *s.version + 1);
    if (s.version && !is_next && !is_whole) {
        if (info.version < *s.version) ask_for_all(s);
        return;
    }
    s.version = info.version;
    if (info.is_full) s.wants_full = false;
    apply(entry.first, info);
    if (is_gap) ask_for_all(s);
}

// As often as a failure may be repeated: a notifier that counts wrongly is not asked for ever.
void RegEvents::ask_for_all(Subscription& s) {
    if (std::exchange(s.wants_full, true) || s.under_way || s.their_tag.empty()) return;  // it is on its way
    const TimePoint next = s.ask_at;
    again(s, {.wish = Wish::at_once});
    s.stood_from = clock_.now();
    if (next < s.ask_at) ask_at(s, next);
}

void RegEvents::take_state(Entry& entry, const SubscriptionState& state) {
    if (state.is_terminated) return ended(entry, state);
    Subscription& s = entry.second;
    if (!state.expires || state.expires->count() == 0 || s.under_way || s.their_tag.empty()) return;
    s.until = clock_.now() + *state.expires;  // RFC 6665 §4.1.2.3: the notifier may shorten it
    const TimePoint refresh = clock_.now() + std::max(refresh_after(*state.expires), kShortestRefresh);
    if (refresh < s.ask_at) ask_at(s, refresh);
}

// RFC 6665 §4.1.3.
void RegEvents::ended(Entry& entry, const SubscriptionState& state) {
    if (!is_registered(entry.first, config_.timers.old_set)) return forget(entry);
    begin_dialog(entry);
    Subscription& s = entry.second;
    again(s, after_termination(state));
    if (!is_news(s)) return;
    log::notice("reg-event-ended", {{"impi", entry.first.value},
                                    {"reason", state.reason.empty() ? "none given" : state.reason},
                                    {"next-try", next_try(s)},
                                    {"why", kUnnoticed}});
}

void RegEvents::apply(const Impi& impi, const RegInfo& info) {
    for (Registration* registration : table_.find_by_impi(impi))
        if (!is_emergency_contact(registration->key) && !registration->ended) apply_to(*registration, info);
}

// C-52: identities that the network has ended go. With the last one the contact goes, and until then the phone may
// still be told over its SAs, for 64·T1.
void RegEvents::apply_to(Registration& registration, const RegInfo& info) {
    const TimePoint now = clock_.now(), before = registration.expires;
    std::vector<RegisteredIdentity> standing;
    bool is_shorter = false;
    for (const RegisteredIdentity& identity : registration.identities) {
        const auto news = news_of(info, own_contact(registration, identity));
        if (news && news->is_terminated) continue;
        RegisteredIdentity& stands = standing.emplace_back(identity);
        if (!news || !news->expires || now + *news->expires + seconds{5} >= stands.expires) continue;
        stands.expires = now + *news->expires;
        is_shorter = true;
    }
    const auto gone = registration.identities.size() - standing.size();
    if (gone != 0) counters_.add(Counter::network_deregistered);
    if (gone != 0 && standing.empty()) {
        if (before <= now + config_.timers.old_set) return;
        registration.shorten(now + config_.timers.old_set);
        return settle(registration, before, "de-registered by the network");
    }
    if (gone != 0)
        log::notice("identity-ended", {{"impi", registration.key.impi.value},
                                       {"identities", gone},
                                       {"left", standing.size()},
                                       {"why", "de-registered by the network"}});
    if (gone == 0 && !is_shorter) return;
    registration.identities = std::move(standing);
    registration.summarise();
    settle(registration, before, is_shorter ? "shortened by the network" : "de-registered by the network");
}

// Its identities have changed: it may end earlier than `before`, and its sets with it.
void RegEvents::settle(Registration& registration, TimePoint before, std::string_view why) {
    ++registration.generation;
    expiry_.watch(registration, registration.first_end());
    if (registration.expires < before) {
        const auto left = std::chrono::duration_cast<seconds>(registration.expires - clock_.now());
        log::notice("registration-shortened",
                    {{"impi", registration.key.impi.value}, {"seconds", left.count()}, {"why", why}});
        for (const auto& set : registration.sets) {
            set->expires = std::min(set->expires, registration.expires);
            expiry_.watch(set->number, set->expires);
        }
    }
    table_.changed(registration.key);
}

}  // namespace gmgate::daemon
