#include "daemon/agreement/authentication_budget.h"

#include <algorithm>
#include <string>

#include "base/random.h"
#include "base/source.h"

namespace gmgate::daemon {
namespace {

// Of a name more at once: a phone that tries and fails is not to be taken for a flood of its name.
constexpr seconds kHeldOfName{30};

TimePoint::duration cost(std::size_t per_second) {
    return per_second == 0 ? TimePoint::duration{}
                           : TimePoint::duration{seconds{1}} / static_cast<std::int64_t>(per_second);
}

}  // namespace

bool AuthenticationBudget::Bucket::is_full(Bound bound, TimePoint now) const {
    return bound.cost != Duration{} && std::max(empty_at, now) + bound.cost > now + bound.held;
}

// Never beyond what it holds: whatever went in, it lets through again after a moment.
void AuthenticationBudget::Bucket::fill(Bound bound, TimePoint now) {
    if (bound.cost != Duration{}) empty_at = std::min(std::max(empty_at, now) + bound.cost, now + bound.held);
}

void AuthenticationBudget::Bucket::drain(Bound bound) { empty_at -= bound.cost; }

template <class Key>
AuthenticationBudget::Bucket AuthenticationBudget::Buckets<Key>::look_up(const Key& key, TimePoint now) {
    const auto known = buckets.find(key);
    if (known != buckets.end()) return known->second;
    if (buckets.size() >= kPlaces && now - cleared >= seconds{1}) {
        cleared = now;
        std::erase_if(buckets, [&](const auto& bucket) { return bucket.second.empty_at <= now; });
    }
    return buckets.size() < kPlaces ? Bucket{} : others;
}

template <class Key>
void AuthenticationBudget::Buckets<Key>::fill(const Key& key, Bound bound, TimePoint now) {
    if (bound.cost == Duration{}) return;
    const bool has_place = buckets.size() < kPlaces || buckets.contains(key);
    (has_place ? buckets[key] : others).fill(bound, now);
}

template <class Key>
void AuthenticationBudget::Buckets<Key>::drain(const Key& key, Bound bound) {
    const auto known = buckets.find(key);
    if (known != buckets.end()) known->second.drain(bound);
}

AuthenticationBudget::AuthenticationBudget(const AuthenticationLimits& limits, const Clock& clock)
    : limits_(limits), clock_(clock) {
    random_bytes(key_);
}

AuthenticationBudget::Bound AuthenticationBudget::for_share() const { return {cost(limits_.per_impi), kHeldOfName}; }
AuthenticationBudget::Bound AuthenticationBudget::for_name() const {
    return {cost(limits_.per_impi * kSharesOfName), kHeldOfName};
}
AuthenticationBudget::Bound AuthenticationBudget::for_source() const { return {cost(limits_.per_source), kHeld}; }
AuthenticationBudget::Bound AuthenticationBudget::for_all() const { return {cost(limits_.in_all), kHeld}; }

AuthenticationCharge AuthenticationBudget::charge_of(const Asker& asker) const {
    const auto source = source_prefix(asker.address);
    std::string share(source.is_v6() ? "6" : "4");
    for (std::size_t i = 0; i < source.size(); ++i) share += static_cast<char>(source.bytes()[i]);
    share += asker.impi.value;
    return {.source = source,
            .name = siphash(key_, asker.impi.value),
            .share = siphash(key_, share),
            .is_known = asker.is_known_address,
            .is_at_home = asker.is_own_address,
            .is_emergency = asker.is_emergency};
}

// The name's bucket is for all who write that name, the phone itself among them: a source that has asked lately may
// fill half of it, so that those who flood leave room for one that has not. Two at once: a phone whose sequence number
// is out of step asks twice.
bool AuthenticationBudget::is_name_used_up(const AuthenticationCharge& charge, TimePoint now) {
    if (shares_.look_up(charge.share, now).is_full(for_share(), now)) return true;
    auto bound = for_name();
    if (firsts_.look_up(charge.share, now).is_full(kForFirsts, now)) bound.held /= 2;
    return names_.look_up(charge.name, now).is_full(bound, now);
}

std::string_view AuthenticationBudget::objection(const AuthenticationCharge& charge, TimePoint now) {
    auto& own = charge.is_emergency ? emergency_ : ordinary_;
    if (charge.is_at_home) {
        const bool is_full = own.users_at_home.look_up(charge.name, now).is_full(for_share(), now);
        return is_full ? "authentications-per-impi" : "";
    }
    if (!charge.is_emergency && is_name_used_up(charge, now)) return "authentications-per-impi";
    if (own.sources.look_up(charge.source, now).is_full(for_source(), now)) return "authentications-per-source";
    if (!charge.is_known && own.all.is_full(for_all(), now)) return "authentications";
    return {};
}

// What objection() asks, and nothing else.
void AuthenticationBudget::fill(const AuthenticationCharge& charge, TimePoint now) {
    auto& own = charge.is_emergency ? emergency_ : ordinary_;
    if (charge.is_at_home) {
        own.users_at_home.fill(charge.name, for_share(), now);
        return;
    }
    if (!charge.is_emergency && limits_.per_impi != 0) {
        shares_.fill(charge.share, for_share(), now);
        firsts_.fill(charge.share, kForFirsts, now);
        names_.fill(charge.name, for_name(), now);
    }
    own.sources.fill(charge.source, for_source(), now);
    if (!charge.is_known) own.all.fill(for_all(), now);
}

std::string_view AuthenticationBudget::take(const Asker& asker, AuthenticationCharge* charge) {
    const auto now = clock_.now();
    auto made = charge_of(asker);
    auto limit = objection(made, now);
    if (!limit.empty() && made.is_at_home && made.is_emergency) {  // has at least what a stranger in need has
        made.is_at_home = false;
        limit = objection(made, now);
    }
    if (!limit.empty()) return limit;
    fill(made, now);
    if (charge) *charge = made;
    return {};
}

// The same buckets as in fill().
void AuthenticationBudget::give_back(const AuthenticationCharge& charge) {
    auto& own = charge.is_emergency ? emergency_ : ordinary_;
    if (charge.is_at_home) {
        own.users_at_home.drain(charge.name, for_share());
        return;
    }
    if (!charge.is_emergency && limits_.per_impi != 0) {
        shares_.drain(charge.share, for_share());
        firsts_.drain(charge.share, kForFirsts);
        names_.drain(charge.name, for_name());
    }
    own.sources.drain(charge.source, for_source());
    if (!charge.is_known) own.all.drain(for_all());
}

}  // namespace gmgate::daemon
