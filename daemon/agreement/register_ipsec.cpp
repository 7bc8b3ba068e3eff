// ipsec-3gpp: what happens with the core's 401 and 200 (TS 33.203 §7.2, §7.4; TS 24.229 §5.2.2.2).
#include <algorithm>
#include <cerrno>
#include <utility>

#include <fmt/format.h>
#include <asio/this_coro.hpp>

#include "base/log.h"
#include "base/spawn.h"
#include "daemon/agreement/contact.h"
#include "daemon/agreement/register_flow.h"
#include "daemon/nat/inner_address.h"
#include "daemon/rules/header_rules.h"
#include "daemon/rules/identity.h"
#include "sip/message/digest.h"

namespace gmgate::daemon {
namespace {

std::string describe(const xfrm::SetParameters& s) {
    return fmt::format("spi-uc={} spi-us={} spi-pc={} spi-ps={} port-uc={} port-us={} port-pc={} port-ps={}",
                       s.spi_uc.value, s.spi_us.value, s.spi_pc.value, s.spi_ps.value, s.port_uc.value, s.port_us.value,
                       s.port_pc.value, s.port_ps.value);
}

// The core has a REGISTER that came over this challenge's set.
template <class Asking>
bool is_being_answered(const Asking& asking, const Challenge& challenge) {
    for (auto at = asking.lower_bound({challenge.impi, Address{}});
         at != asking.end() && at->first.first == challenge.impi; ++at)
        if (at->second->set == challenge.set->number) return true;
    return false;
}

bool is_registered_here(Table& table, const Challenge& challenge) {
    return std::ranges::any_of(table.find_by_impi(challenge.impi), [&](const Registration* known) {
        return std::ranges::any_of(known->sets, [&](const auto& set) { return set->parameters.ue == challenge.ue; });
    });
}

// Whoever sends datagrams from the address of a phone has what the phone needs, if only until it is known that nobody
// answers. Such a challenge gives way to a newer one that the core has made: the oldest, those of users who are
// registered at the address last, for who is known there is the phone rather than the stranger. Null: what is in the
// way are registrations, or answers that the core has.
template <class Asking>
const Challenge* in_the_way(Table& table, const Limits& limits, const SetWish& wish, const Asking& asking) {
    const Challenge *known = nullptr, *unknown = nullptr;
    const auto consider = [&](const Challenge& challenge) {
        if (unknown || is_being_answered(asking, challenge)) return;
        if (!is_registered_here(table, challenge)) unknown = &challenge;
        else if (!known) known = &challenge;
    };
    if (table.challenges_at(wish.ue) >= limits.challenges_per_address) {  // of its IPv6 /64
        table.for_each_challenge_at(wish.ue, consider);
        return unknown ? unknown : known;
    }
    const bool is_full = table.sets_at(wish.ue) >= limits.sets_per_address;
    table.for_each_set_at(wish.ue, [&](const SaSet& set) {
        const auto* challenge = table.find_set(set.number).challenge;
        const auto& ports = set.parameters;
        const bool is_meant = is_full || ports.port_uc == wish.port_uc || ports.port_us == wish.port_us;
        if (challenge && is_meant) consider(*challenge);
    });
    return unknown ? unknown : known;
}

}  // namespace

// The same when there is room for no more challenges at all: of the source that has most, for many sources are more
// trouble to pretend than many names. Null: nobody among those that are looked at, and the newcomer is refused.
const Challenge* RegisterFlow::first_to_give_way() const {
    const Challenge *known = nullptr, *unknown = nullptr;
    p_.table.for_each_challenge_of_fullest([&](const Challenge& challenge) {
        if (unknown || is_being_answered(asking_, challenge)) return;
        if (!is_registered_here(p_.table, challenge)) unknown = &challenge;
        else if (!known) known = &challenge;
    });
    return unknown ? unknown : known;
}

Task<void> RegisterFlow::give_way(const Challenge& oldest, const Exchange& to, const std::string& why) {
    log::notice("challenge-gives-way", {{"impi", oldest.impi.value},
                                        {"ue", oldest.ue.to_string()},
                                        {"set", oldest.set->number.value},
                                        {"to", to.impi.value},
                                        {"why", why}});
    p_.counters.add(Counter::challenge_gave_way);
    auto leaving = p_.table.take_challenge(oldest.key());
    co_await p_.sets.remove(std::move(leaving->set));
}

// ------------------------------------------------------------------------------------------------- 401: the SAs, then
// the answer

Task<void> RegisterFlow::install_and_challenge(Exchange& x, sip::OwnedMessage response, ChallengeKeys keys) {
    const auto ue = x.ue();
    const auto guard = co_await address_lock_.acquire(ue);

    if (x.is_superseded) {
        response.wipe();
        object(x, {480, "superseded", "a newer REGISTER of this phone has been challenged meanwhile"});
        co_return;
    }
    const auto* known = p_.table.find_challenge(x.challenge_key());
    if (known && x.over == Over::unprotected && is_being_answered(asking_, *known)) {  // anybody may have sent this one
        response.wipe();
        object(x, {480, "being-answered", "the core is judging the phone's answer to the challenge before this one"});
        co_return;
    }
    // B-43, C-31: a new challenge ends the one before it of this phone's contact; its SPIs may be the same.
    if (auto before = p_.table.take_challenge(x.challenge_key())) co_await p_.sets.remove(std::move(before->set));
    auto set = co_await make_set(x, std::move(keys));
    if (!set) {
        response.wipe();
        co_return;
    }
    if (x.over == Over::established && !p_.table.find_set(x.set).set) {  // ended meanwhile
        response.wipe();
        co_await p_.sets.remove(std::move(set));
        object(x, {480, "set", "the registration ended while the core was asked"});
        co_return;
    }
    const auto number = set->number;
    put_challenge(x, std::move(set), *response);
    p_.counters.add(Counter::challenge_tx);
    p_.counters.add(Counter::mechanism_ipsec);
    if (x.choice.mode == xfrm::Mode::udp_enc_tun) p_.counters.add(Counter::mechanism_udp_enc_tun);
    if (is_deprecated(x.choice.algorithms)) p_.counters.add(Counter::deprecated_chosen);
    const bool is_waiting = p_.sets.is_waiting(number);
    if (p_.keeper && !is_waiting) co_await p_.keeper->save_challenge(x.challenge_key());
    const auto* standing = p_.table.find_set(number).set;
    if (!standing) {  // ended meanwhile
        response.wipe();
        object(x, {480, "set", "the new SAs ended while the other gateways were told of them"});
        co_return;
    }
    pass(x, response,
         is_waiting ? "challenged; another set has the phone's SPIs until the phone has proved itself"
                    : "challenged; the SAs are installed",
         standing->security_server.text());
    response.wipe();
    if (is_waiting) spawn(co_await asio::this_coro::executor, await_connection(number), "await_connection");
}

// The set that the phone asked for, in the kernel (B-34). Null: the phone has been told why not.
Task<std::unique_ptr<SaSet>> RegisterFlow::make_set(Exchange& x, ChallengeKeys keys) {
    SetWish wish;
    wish.ue = x.ue();
    wish.gateway = x.access->address;
    wish.port_uc = *x.choice.offer.port_c;
    wish.port_us = *x.choice.offer.port_s;
    wish.spi_uc = *x.choice.offer.spi_c;
    wish.spi_us = *x.choice.offer.spi_s;
    wish.algorithms = x.choice.algorithms;
    wish.time_asked = time_asked(x.request());
    wish.mode = x.choice.mode;
    if (const auto* carrier = p_.table.find_set(x.set).set) {
        wish.port_uenc = carrier->port_uenc;
        wish.inner = carrier->parameters.inner;
        wish.inner_in_use = carrier->inner;
    } else if (wish.mode == xfrm::Mode::udp_enc_tun && x.access->profile->nat.takes_private_inner) {
        wish.inner = inner_address_of(x.request(), wish.ue);
    }
    if (x.carried_by) wish.port_ps = x.carried_by->port_ps;  // B-17
    Result<std::unique_ptr<SaSet>> reserved = nullptr;
    for (;;) {
        // What comes over SAs is a registered phone's: the limit of all challenges does not stop it.
        const bool is_full = x.over == Over::unprotected && p_.table.challenge_count() >= p_.config.limits.challenges;
        reserved = failure(Reaction::exhausted, is_full ? "too many challenges are waiting for an answer"
                                                        : "too many challenges for this UE address");
        if (!is_full && p_.table.challenges_at(wish.ue) < p_.config.limits.challenges_per_address)
            reserved = p_.sets.reserve(wish, *x.access->profile, x.access->interface->strict_collision);
        const auto* oldest = reserved  ? nullptr
                             : is_full ? first_to_give_way()
                                       : in_the_way(p_.table, p_.config.limits, wish, asking_);
        if (!oldest) break;
        co_await give_way(*oldest, x, reserved.error().text);
    }
    auto esp_keys = xfrm::derive_esp_keys(x.choice.algorithms, keys.ck, keys.ik);
    if (!reserved || !esp_keys) {
        if (!reserved) p_.counters.add(Counter::set_limit);
        const int status = reserved ? 500 : (reserved.error().reaction == Reaction::refused ? 480 : 503);
        object(x, {status, "limit", reserved ? esp_keys.error().text : reserved.error().text});
        co_return nullptr;
    }
    auto set = co_await p_.sets.install(std::move(*reserved), std::move(*esp_keys));
    // Over an established set the phone has its SPIs before its eyes: new ones are its duty there (B-22).
    if (!set && set.error().code == EEXIST && x.over == Over::unprotected) {
        auto refusal = set.error();
        set = co_await install_beside(x, std::move(wish), keys, std::move(refusal));
    }
    if (set) co_return std::move(*set);
    const bool taken = set.error().code == EEXIST;
    object(x, {taken ? 480 : 503, "kernel",
               fmt::format("the kernel refuses the SAs: {}{}", set.error().text,
                           !taken ? ""
                           : x.choice.mode == xfrm::Mode::udp_enc_tun
                               ? " (another phone behind its NAT has one of its SPIs; its next try has others)"
                               : " (an SPI of the phone is in use at its address)")});
    co_return nullptr;
}

void RegisterFlow::put_challenge(Exchange& x, std::unique_ptr<SaSet> set, const sip::Message& response) {
    const auto ue = x.ue();
    auto challenge = std::make_unique<Challenge>();
    challenge->impi = x.impi;
    challenge->ue = ue;
    challenge->contact = x.contact;
    const auto [oldest, end] = asking_.equal_range({x.impi, ue});
    for (auto at = oldest; at != end && at->second != &x; ++at)
        if (at->second->challenge_key() == x.challenge_key()) at->second->is_superseded = true;
    challenge->token = x.token;
    if (const auto told = sip::DigestParams::parse(response.value(sip::HeaderId::www_authenticate)))
        challenge->nonce = told->get("nonce").value_or("");
    if (x.over == Over::established) challenge->came_over = x.set;
    challenge->charge = std::exchange(x.charge, std::nullopt);
    challenge->set = std::move(set);
    auto& fresh = *challenge->set;
    fresh.security_client = x.record.offer;  // of x.client, as text
    const auto& parameters = fresh.parameters;
    const OwnParameters own{parameters.spi_pc, parameters.spi_ps, parameters.port_pc, parameters.port_ps};
    fresh.security_server = security_server(x.choice, x.policy, *x.access->interface, own);
    x.record.security_associations = describe(parameters);
    x.record.set = fresh.number;
    x.record.own_spis = fresh.own_spis();
    p_.expiry.watch(fresh.number, fresh.expires);
    p_.table.put_challenge(std::move(challenge));
}

// ----------------------------------------------------------------------------------------------------------- 200:
// established

// SM12: the temporary set becomes established (C-40, C-42, B-51, B-53, B-54).
Task<void> RegisterFlow::establish(Exchange& x, const sip::OwnedMessage& response, std::chrono::seconds expires) {
    auto adopted = co_await adopt_set(x, p_.clock.now() + expires + p_.config.timers.lifetime_margin);
    if (!adopted) co_return;
    learn(registration_for(x), x, *response, expires);
    p_.counters.add(adopted->is_kept ? Counter::reregistered : Counter::registered);
    co_await answer_over(x, response, std::move(*adopted), "registered");
}

// The phone uses the adopted set from now on; what others had at its address goes with what the set leaves behind.
Task<void> RegisterFlow::answer_over(Exchange& x, const sip::OwnedMessage& response, Adopted adopted,
                                     std::string_view why) {
    for (auto& set : displace_others(registration_for(x), x)) adopted.leaving.push_back(std::move(set));
    co_await keep(x.contact);
    pass(x, response, why);
    for (auto& set : adopted.leaving) co_await p_.sets.remove(std::move(set));
}

// The SPIs that it has now: another REGISTER over it may have brought it the phone's own while the core was asked.
Task<bool> RegisterFlow::settle_spis(Exchange& x) {
    const auto taken = co_await take_spis(x.set);  // waits for one that is under way; else there may be nothing to do
    const auto* set = p_.table.find_set(x.set).set;
    if (!set) object(x, {480, "set", "the temporary set ended while it was being established"});
    else if (!taken) object(x, {480, "kernel", "no SAs with its SPIs: " + taken.error().text});
    else x.carried_by = set->parameters;
    co_return taken&& set;
}

// The temporary set becomes one of its contact's; nullopt: it did not, and the phone was told why.
Task<std::optional<RegisterFlow::Adopted>> RegisterFlow::adopt_set(Exchange& x, TimePoint until) {
    const bool is_settled = co_await settle_spis(x);
    if (!is_settled) co_return std::nullopt;
    if (const auto* known = p_.table.find(x.contact)) {
        for (const auto& set : known->sets)
            until = std::max(until, set->state == SetState::established ? set->expires : until);
        const Impu to = to_identity(x.request());
        for (const auto& other : known->identities)  // they may have been granted more, over TLS
            if (!is_same_identity(other.aor.value, to.value))
                until = std::max(until, other.expires + p_.config.timers.lifetime_margin);
    }
    const auto extended = co_await p_.sets.keep_until(x.set, until);
    auto owner = p_.table.find_set(x.set);  // again: the table moved on while the kernel was asked
    if (!owner.challenge || owner.challenge->finished) {
        object(x, {480, "set", "the temporary set ended while it was being established"});
        co_return std::nullopt;
    }
    if (!extended) {
        object(x, {500, "kernel", "the lifetime of the SAs cannot be extended: " + extended.error().text});
        finish_challenge(x);
        co_return std::nullopt;
    }
    auto challenge = p_.table.take_challenge(owner.challenge->key());
    auto& registration = registration_for(x);
    const auto kept =
        challenge->came_over && registration.find(*challenge->came_over) ? challenge->came_over : std::nullopt;
    if (registration.tls) {  // the phone gave up TLS
        const auto connection = registration.tls->flow.connection;
        p_.table.unbind(registration);
        if (p_.table.bound_to(connection).empty()) p_.transports.close(connection, false);
    }
    Adopted adopted{settle_sets(registration, std::move(challenge->set), kept, until), kept.has_value()};
    registration.authorized_as = authorized_as(x.credentials.authorization);
    co_return adopted;
}

// What happens to the sets that were there before (table C-44). `kept`: a re-authentication came over this one. Those
// that end at once come back; no more than one stays beside the new set, so that with a temporary one a contact has
// three (B-22).
std::vector<std::unique_ptr<SaSet>> RegisterFlow::settle_sets(Registration& registration, std::unique_ptr<SaSet> fresh,
                                                              std::optional<SetNumber> kept, TimePoint expires) {
    std::vector<SetNumber> ending;
    const auto now = p_.clock.now();
    const auto* outbound = registration.outbound();
    for (const auto& set : registration.sets) {
        const bool moved = set->parameters.ue != fresh->parameters.ue;
        if (kept && set->number == *kept) {
            // B-54: it carries outbound traffic until the UE uses the new one. A phone that began over an older set
            // than the one in use has lost the newer: its 200 never arrived.
            set->state = SetState::old;
            set->in_use = true;
            p_.expiry.watch(set->number, set->expires - p_.config.timers.old_set);
        } else if (!kept && moved && !registration.ended && set.get() == outbound) {
            // The phone changed its address or access: what it still has in flight may finish: 64*T1 after the new 200.
            set->state = SetState::old;
            set->in_use = false;
            set->expires = std::min(set->expires, now + p_.config.timers.old_set);
            p_.expiry.watch(set->number, set->expires);
        } else {
            ending.push_back(set->number);
        }
    }
    std::vector<std::unique_ptr<SaSet>> leaving;
    for (const auto number : ending) leaving.push_back(p_.table.take_set(registration, number));
    fresh->state = SetState::established;
    fresh->in_use = !kept;
    fresh->expires = expires;
    p_.expiry.watch(fresh->number, expires);
    p_.table.add_set(registration, std::move(fresh));
    return leaving;
}

// G-25: the newcomer has proved that this address and client port are its own now, so whoever had them before is gone:
// crashed and back under another contact, or the address went to another phone. An emergency contact stands beside its
// user's others (B-3).
std::vector<std::unique_ptr<SaSet>> RegisterFlow::displace_others(const Registration& registration, const Exchange& x) {
    std::vector<std::unique_ptr<SaSet>> leaving;
    for (const auto* other : p_.table.at_client_port(x.carried_by->ue, x.carried_by->port_uc, x.carried_by->gateway,
                                                     x.access->profile->server_ports(x.carried_by->mode))) {
        if (other == &registration) continue;
        // Behind one NAT there are many phones with the same ports: only what was the phone's own is gone.
        if (x.carried_by->mode == xfrm::Mode::udp_enc_tun && other->key.impi != registration.key.impi) continue;
        if (other->key.impi == registration.key.impi &&
            is_emergency_contact(other->key) != is_emergency_contact(registration.key))
            continue;
        p_.counters.add(Counter::displaced);
        log::notice("registration-ended",
                    {{"impi", other->key.impi.value},
                     {"ue", x.carried_by->ue.to_string()},
                     {"by", registration.key.impi.value},
                     {"why", "another contact has proved that this address and client port are its own"}});
        auto ended = p_.table.take(ContactKey{other->key});
        for (auto& set : ended->sets) leaving.push_back(std::move(set));
    }
    return leaving;
}

// A refresh without a challenge extends the SAs of the last successful authentication (B-52).
Task<void> RegisterFlow::refresh(Exchange& x, const sip::OwnedMessage& response, std::chrono::seconds expires) {
    // Not always the one that carried it: an emergency contact is refreshed over the normal one's SAs, too.
    const auto* registration = p_.table.find(x.contact);
    if (!registration || registration->ended || registration->sets.empty()) {
        pass(x, response, "accepted without a challenge, but this contact has no SAs of its own: nothing changes");
        co_return;
    }
    const auto* newest = registration->sets.back().get();
    const auto number = newest->number;
    const auto before = newest->expires;
    const auto until = std::max(newest->expires, p_.clock.now() + expires + p_.config.timers.lifetime_margin);
    const auto extended = co_await p_.sets.keep_until(number, until);
    const auto owner = p_.table.find_set(number);  // again after the await
    // A NOTIFY may have shortened it meanwhile: that is the network's later word.
    const bool is_over = !owner.registration || owner.registration->ended || owner.set->expires < before;
    if (!extended || is_over) {
        object(x, {extended ? 480 : 500, "kernel",
                   extended ? "the registration ended while it was being refreshed"
                            : "the lifetime of the SAs cannot be extended: " + extended.error().text});
        co_return;
    }
    owner.set->expires = until;
    p_.expiry.watch(number, until);
    if (!owner.registration->authorized_as->is_known())
        owner.registration->authorized_as = authorized_as(x.credentials.authorization);
    learn(*owner.registration, x, *response, expires);
    p_.counters.add(Counter::reregistered);
    ContactKey refreshed = owner.registration->key;
    co_await keep(std::move(refreshed));
    pass(x, response, "refreshed");
}

void RegisterFlow::finish_challenge(const Exchange& x) {
    const auto owner = p_.table.find_set(x.set);
    if (!owner.challenge) return;
    owner.challenge->finished = true;
    owner.set->expires = std::min(owner.set->expires, p_.clock.now() + p_.config.timers.final_answer);
    p_.expiry.watch(owner.set->number, owner.set->expires);
}

}  // namespace gmgate::daemon
