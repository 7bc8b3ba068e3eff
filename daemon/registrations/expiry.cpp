#include "daemon/registrations/expiry.h"

#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>

#include "base/log.h"
#include "base/slice.h"

namespace gmgate::daemon {

Expiry::Expiry(const Config& config, Table& table, SaSets& sets, sip::Transports& transports, Counters& counters,
               const Clock& clock)
    : config_(config), table_(table), sets_(sets), transports_(transports), counters_(counters), clock_(clock) {
    sets_.on_removed([this](SetNumber number) { due_.erase(number); });
    table_.on_taken([this](const Registration& registration) { due_contacts_.erase(registration.number); });
}

void Expiry::watch(SetNumber number, TimePoint when) { due_.put(number, when); }
void Expiry::watch(const Registration& registration, TimePoint when) { due_contacts_.put(registration.number, when); }

Task<void> Expiry::run() {
    asio::steady_timer timer(co_await asio::this_coro::executor);
    for (;;) {
        timer.expires_after(std::chrono::seconds{1});
        asio::error_code stopped;
        co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, stopped));
        if (stopped) co_return;
        co_await sweep();
        co_await sets_.remove_leftovers();
    }
}

void Expiry::used(Registration& registration, SetNumber number) {
    if (!take_into_use(registration, number, clock_.now(), config_.timers.old_set)) return;
    table_.changed(registration.key);
    log::info("set-taken-into-use",
              {{"impi", registration.key.impi.value}, {"set", number.value}, {"why", "the phone uses it"}});
    for (const auto& set : registration.sets) watch(set->number, set->expires);
}

// Row "old set in use has <= 64*T1 left" of table C-44: the new set is taken into use although the UE has not used it
// yet.
void Expiry::prepare_handover(Registration& registration, const SaSet& set) {
    if (set.state != SetState::old || !set.in_use) return;
    for (const auto& other : registration.sets)
        if (other->state == SetState::established &&
            take_into_use(registration, other->number, clock_.now(), config_.timers.old_set)) {
            table_.changed(registration.key);
            log::info("set-taken-into-use", {{"impi", registration.key.impi.value},
                                             {"set", other->number.value},
                                             {"why", "the old set is about to expire"}});
            return;
        }
}

Task<void> Expiry::sweep_contacts() {
    Slice slice;
    for (;;) {
        if (slice.is_over()) co_await slice.pause();
        const auto due = due_contacts_.take(clock_.now());
        if (!due) co_return;
        auto* registration = table_.find(*due);
        if (!registration || registration->ended) continue;  // its sets go one by one
        const auto margin = registration->tls ? std::chrono::seconds{0} : config_.timers.lifetime_margin;
        if (const auto dropped = registration->drop_ended(clock_.now() - margin); dropped != 0) {
            ++registration->generation;
            log::info("identity-ended", {{"impi", registration->key.impi.value},
                                         {"identities", dropped},
                                         {"left", registration->identities.size()},
                                         {"why", "it ran out without a refresh"}});
            table_.changed(registration->key);
        }
        const auto end = registration->first_end() + margin;
        if (end > clock_.now()) {
            watch(*registration, end);
            continue;
        }
        ContactKey key = registration->key;
        co_await end_service(std::move(key));
    }
}

// TS 24.229 §5.2.5: what is not registered any more is not served, and its SAs go. A TLS connection may be another
// contact's as well.
Task<void> Expiry::end_service(ContactKey key) {
    const auto* known = table_.find(key);
    const auto connection = known->tls ? known->tls->flow.connection : sip::ConnectionId{};
    counters_.add(Counter::established_expired);
    log::info("registration-expired",
              {{"impi", key.impi.value}, {"connection", connection.value}, {"sets", known->sets.size()}});
    const bool is_over_tls = known->tls != nullptr;
    auto ended = table_.take(key);
    if (is_over_tls && table_.bound_to(connection).empty()) transports_.close(connection, false);
    for (auto& set : ended->sets) co_await sets_.remove(std::move(set));
}

Task<void> Expiry::sweep() {
    co_await sweep_contacts();
    Slice slice;
    for (;;) {
        if (slice.is_over()) co_await slice.pause();
        const auto due = due_.take(clock_.now());
        if (!due) co_return;
        const auto number = *due;
        const auto owner = table_.find_set(number);
        if (!owner.set) continue;
        const auto handover = owner.set->expires - config_.timers.old_set;
        if (owner.registration && owner.set->state == SetState::old && owner.set->in_use && handover <= clock_.now())
            prepare_handover(*owner.registration, *owner.set);
        if (owner.set->expires > clock_.now()) {
            const bool waits_for_handover =
                owner.set->state == SetState::old && owner.set->in_use && handover > clock_.now();
            watch(number, waits_for_handover ? handover : owner.set->expires);
            continue;
        }
        // By value: both may suspend, and the table moves on meanwhile.
        if (owner.challenge) co_await end_challenge(owner.challenge->key());
        else co_await end_set(owner.registration->key, number);
    }
}

Task<void> Expiry::end_challenge(ChallengeKey key) {
    auto challenge = table_.take_challenge(key);
    if (!challenge->finished) {
        counters_.add(Counter::temporary_expired);
        log::notice("challenge-expired", {{"impi", key.impi.value},
                                          {"ue", key.ue.to_string()},
                                          {"set", challenge->set->number.value},
                                          {"why", "the phone was not accepted over its SAs in time"}});
    }
    co_await sets_.remove(std::move(challenge->set));
}

Task<void> Expiry::end_set(ContactKey key, SetNumber number) {
    auto* registration = table_.find(key);
    auto set = table_.take_set(*registration, number);
    ++registration->generation;
    if (registration->sets.empty()) {
        if (!registration->ended) {
            counters_.add(Counter::established_expired);
            log::info("registration-expired", {{"impi", key.impi.value}, {"set", number.value}});
        }
        table_.take(key);
    }
    co_await sets_.remove(std::move(set));
}

}  // namespace gmgate::daemon
