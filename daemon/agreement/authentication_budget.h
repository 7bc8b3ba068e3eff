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
#include "daemon/registrations/authentication_charge.h"

namespace gmgate::daemon {

/// Token buckets: for each source (IPv4 address, IPv6 /64) and for all together, which hold ten seconds' worth; for
/// each private identity, and for what each source asks in its name, which hold thirty. What became a registration
/// costs nothing: phones that register are not what has to be bounded. Bounded itself: a source or name that finds no
/// place counts as one of all the others.
///
/// Who is not held to a bucket does not fill it either: nobody keeps others out by what it may do without bound.
class AuthenticationBudget {
public:
    static constexpr seconds kHeld{10};
    static constexpr std::size_t kPlaces = 65536;  ///< in each table: of sources, of names and so on
    /// A name has as much as so many sources that ask in it: one or a few of them do not use it up. Half of that is
    /// for the first two REGISTERs of a source and one in fifteen seconds from then on: as long as no more than some
    /// forty others flood a name, its phone comes before them.
    static constexpr std::size_t kSharesOfName = 8;

    /// `limits` outlive it and may change at any time.
    AuthenticationBudget(const AuthenticationLimits& limits, const Clock& clock);

    struct Asker {
        Address address;
        Impi impi;
        bool is_known_address = false;  ///< somebody is or was registered from there: not held to the limit of all
        bool is_own_address = false;    ///< this user is registered from there: held to a bucket of its own alone, so
                                        ///< that what others do with its name or at its address does not count
        bool is_emergency = false;      ///< not held to the limit of its name, which anybody may write; its source and
                                        ///< all of these together have a share of their own
    };
    /// The limit that stands against it, as it is called in [limits]; empty: it may go to the core, and `charge`, when
    /// given, is what it was charged.
    std::string_view take(const Asker& asker, AuthenticationCharge* charge = nullptr);
    /// It has become a registration: to be called once for a charge.
    void give_back(const AuthenticationCharge& charge);

private:
    using Duration = TimePoint::duration;
    /// How long what is let through once stands in a bucket (0: everything is), and how much stands in a full one.
    struct Bound {
        Duration cost{}, held{};
    };
    struct Bucket {
        TimePoint empty_at{};  ///< as far ahead as it holds when it is full
        bool is_full(Bound bound, TimePoint now) const;
        void fill(Bound bound, TimePoint now);
        void drain(Bound bound);
    };
    template <class Key>
    struct Buckets {
        std::unordered_map<Key, Bucket> buckets{};
        TimePoint cleared{};
        Bucket others{};  ///< of those without a place

        Bucket look_up(const Key& key, TimePoint now);  ///< takes no place: who is refused leaves nothing behind
        void fill(const Key& key, Bound bound, TimePoint now);
        void drain(const Key& key, Bound bound);
    };

    AuthenticationCharge charge_of(const Asker& asker) const;
    std::string_view objection(const AuthenticationCharge& charge, TimePoint now);
    bool is_name_used_up(const AuthenticationCharge& charge, TimePoint now);
    void fill(const AuthenticationCharge& charge, TimePoint now);
    Bound for_share() const;
    Bound for_name() const;
    Bound for_source() const;
    Bound for_all() const;
    static constexpr Bound kForFirsts{seconds{15}, seconds{30}};

    const AuthenticationLimits& limits_;
    const Clock& clock_;
    /// What has one for ordinary REGISTERs and another for emergency ones.
    struct Both {
        Buckets<Address> sources{};
        Buckets<std::uint64_t> users_at_home{};
        Bucket all{};
    } ordinary_, emergency_;
    Buckets<std::uint64_t> names_, shares_, firsts_;  ///< by a keyed hash: a name may have kilobytes
    SipHashKey key_{};
};

}  // namespace gmgate::daemon
