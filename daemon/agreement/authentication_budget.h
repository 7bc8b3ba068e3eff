// How many REGISTERs in clear are passed to the core: each makes the home network take an authentication vector, and
// anybody can send one with anybody's name in it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <unordered_map>

#include "base/clock.h"
#include "base/endpoint.h"
#include "base/siphash.h"
#include "base/types.h"
#include "daemon/config/strangers.h"

namespace gmgate::daemon {

/// Token buckets: for each source (IPv4 address, IPv6 /64) and for all together, which hold ten seconds' worth, and for
/// each private identity, which hold thirty. What became a registration costs nothing: phones that register are not
/// what has to be bounded. Bounded itself: a source or name that finds no place counts as one of all the others.
class AuthenticationBudget {
public:
    static constexpr seconds kHeld{10};
    static constexpr std::size_t kPlaces = 65536;  ///< of sources, of names, and of users at their own address

    /// `limits` outlive it and may change at any time.
    AuthenticationBudget(const AuthenticationLimits& limits, const Clock& clock);

    struct Asker {
        Address address;
        Impi impi;
        bool is_known_address = false;  ///< somebody is or was registered from there: not held to the limit of all
        bool is_own_address = false;  ///< this user is registered from there: what others do with its name, and others
                                      ///< at its address, does not count against it
        bool is_emergency =
            false;  ///< not held to the limit of its name; all of these together have a share of their own
    };
    /// The limit that stands against it, as it is called in [limits]; empty: it may go to the core, and is counted.
    std::string_view take(const Asker& asker);
    /// It has become a registration.
    void give_back(const Address& address, const Impi& impi, bool is_emergency);

private:
    using Duration = TimePoint::duration;
    /// When a bucket is empty again; as far ahead as it holds when it is full.
    template <class Key>
    struct Buckets {
        std::unordered_map<Key, TimePoint> empty_at{};
        TimePoint cleared{};
        TimePoint others{};  ///< of those without a place
    };
    template <class Key>
    TimePoint& find(Buckets<Key>& buckets, const Key& key);

    std::uint64_t short_name(const Impi& impi) const;

    const AuthenticationLimits& limits_;
    const Clock& clock_;
    Buckets<Address> sources_;
    Buckets<std::uint64_t> names_, users_at_home_;  ///< by a keyed hash: a name may have kilobytes
    SipHashKey key_{};
    TimePoint all_{}, all_emergencies_{};
};

}  // namespace gmgate::daemon
