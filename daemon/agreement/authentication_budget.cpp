#include "daemon/agreement/authentication_budget.h"

#include <algorithm>

#include "base/random.h"
#include "base/source.h"

namespace gmgate::daemon {
namespace {

using Duration = TimePoint::duration;

Duration cost(std::size_t per_second) { return Duration{seconds{1}} / static_cast<Duration::rep>(per_second); }

// Of a name more at once: a phone that tries and fails is not to be taken for a flood of its name.
constexpr seconds kHeldOfName{30};

bool is_full(const TimePoint& empty_at, std::size_t per_second, TimePoint now, seconds held) {
    return per_second != 0 && std::max(empty_at, now) + cost(per_second) > now + held;
}

void fill(TimePoint& empty_at, std::size_t per_second, TimePoint now) {
    if (per_second != 0) empty_at = std::max(empty_at, now) + cost(per_second);
}

void drain(TimePoint& empty_at, std::size_t per_second) {
    if (per_second != 0) empty_at -= cost(per_second);
}

}  // namespace

AuthenticationBudget::AuthenticationBudget(const AuthenticationLimits& limits, const Clock& clock)
    : limits_(limits), clock_(clock) {
    random_bytes(key_);
}

std::uint64_t AuthenticationBudget::short_name(const Impi& impi) const { return siphash(key_, impi.value); }

template <class Key>
TimePoint& AuthenticationBudget::find(Buckets<Key>& buckets, const Key& key) {
    const auto known = buckets.empty_at.find(key);
    if (known != buckets.empty_at.end()) return known->second;
    const auto now = clock_.now();
    if (buckets.empty_at.size() >= kPlaces && now - buckets.cleared >= seconds{1}) {
        buckets.cleared = now;
        std::erase_if(buckets.empty_at, [&](const auto& bucket) { return bucket.second <= now; });
    }
    return buckets.empty_at.size() < kPlaces ? buckets.empty_at[key] : buckets.others;
}

std::string_view AuthenticationBudget::take(const Asker& asker) {
    const auto now = clock_.now();
    auto& name = find(asker.is_own_address ? users_at_home_ : names_, short_name(asker.impi));
    if (!asker.is_emergency && is_full(name, limits_.per_impi, now, kHeldOfName)) return "authentications-per-impi";
    auto& source = find(sources_, source_prefix(asker.address));
    if (!asker.is_own_address && is_full(source, limits_.per_source, now, kHeld)) return "authentications-per-source";
    auto& all = asker.is_emergency ? all_emergencies_ : all_;
    if (!asker.is_own_address && !asker.is_known_address && is_full(all, limits_.in_all, now, kHeld))
        return "authentications";
    fill(name, limits_.per_impi, now);
    fill(all, limits_.in_all, now);
    if (!asker.is_own_address) fill(source, limits_.per_source, now);
    return {};
}

void AuthenticationBudget::give_back(const Address& address, const Impi& impi, bool is_emergency) {
    const auto source = sources_.empty_at.find(source_prefix(address));
    if (source != sources_.empty_at.end()) drain(source->second, limits_.per_source);
    const auto name = short_name(impi);
    names_.empty_at.erase(name);
    users_at_home_.empty_at.erase(name);
    drain(is_emergency ? all_emergencies_ : all_, limits_.in_all);
}

}  // namespace gmgate::daemon
