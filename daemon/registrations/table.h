// All challenges and registrations, and every way to find one. It owns; nobody keeps a pointer across a co_await.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <unordered_map>
#include <vector>

#include "base/siphash.h"
#include "base/task.h"
#include "daemon/registrations/by_source.h"
#include "daemon/registrations/registration.h"

namespace gmgate::daemon {

/// Whom a flow belongs to, as the kernel says it: by the mark of the inbound SA, or by the four-tuple of a connection
/// that we opened.
struct FlowOwner {
    SaSet* set = nullptr;                  ///< null for a bound TLS connection
    Registration* registration = nullptr;  ///< null for a temporary set
    Challenge* challenge = nullptr;        ///< set when the set is temporary
};

/// How many there are of each kind.
struct TableCounts {
    std::size_t over_ipsec = 0, over_tls = 0, ended = 0;       ///< registrations
    std::size_t temporary = 0, established = 0, old_sets = 0;  ///< sets of SAs
};

/// The owner of every core-side door; which element of the core it is tells the address.
inline constexpr sip::OwnerId kCoreOwner{1};

class Table {
public:
    Table();

    /// Each is called with the key of a registration that was taken out or lost or gained a set or a connection, and by
    /// changed().
    void on_change(std::function<void(const ContactKey&)> handler) { change_handlers_.push_back(std::move(handler)); }
    /// Each is called with a registration that was taken out, before whoever took it has it.
    void on_taken(std::function<void(const Registration&)> handler) { taken_handlers_.push_back(std::move(handler)); }
    /// Something of a registration changed that the table cannot see (which set is in use, a lifetime, that it ended).
    void changed(const ContactKey& key) {
        for (const auto& handler : change_handlers_) handler(key);
    }

    // ---- challenges: one for each key
    Challenge* find_challenge(const ChallengeKey& key);
    /// Puts a challenge in place; the one before it comes back (its set must be removed from the kernel by the caller).
    std::unique_ptr<Challenge> put_challenge(std::unique_ptr<Challenge> challenge);
    std::unique_ptr<Challenge> take_challenge(const ChallengeKey& key);
    std::size_t challenge_count() const { return challenges_.size(); }
    /// Of that source: IPv4 address, IPv6 /64.
    std::size_t challenges_at(const Address& ue) const;
    /// The same, oldest first.
    void for_each_challenge_at(const Address& ue, const std::function<void(const Challenge&)>& f) const;
    /// Some of all, at a bounded cost: the oldest few of the source that has most, then of the next.
    void for_each_challenge_of_fullest(const std::function<void(const Challenge&)>& f) const;

    // ---- registrations
    Registration* find(const ContactKey& key);
    /// Null also for a registration that has ended and only waits for its last answer's retransmissions.
    Registration* find_by_token(std::string_view token);
    Registration* find(RegistrationNumber number);
    std::vector<Registration*> find_by_impi(const Impi& impi);
    /// The new registration; replaces nothing (the key must be free).
    Registration& add(std::unique_ptr<Registration> registration);
    /// Out of every index; the caller removes its sets from the kernel.
    std::unique_ptr<Registration> take(const ContactKey& key);
    std::size_t registration_count() const { return registrations_.size(); }
    /// Holds the loop up as long as it takes, some ten milliseconds with very many: when nobody is served yet.
    void for_each(const std::function<void(Registration&)>& f);

    // ---- walks over all, in slices: phones are served between. What comes or goes meanwhile is told or not; what
    // stands all the while is told once.
    /// `f` may keep no reference.
    Task<void> walk(std::function<void(Registration&)> f);
    Task<void> walk_challenges(std::function<void(Challenge&)> f);
    Task<TableCounts> count();

    // ---- TLS connections
    /// Binds a connection to a registration; the flow it was bound to before comes back, for the caller to close (C-49:
    /// one connection, one IMPI; the caller has checked that this connection is not another's).
    std::optional<sip::Flow> bind(Registration& registration, TlsBinding binding);
    void unbind(Registration& registration);
    /// The contacts that a connection carries: one, and perhaps an emergency contact beside it.
    std::vector<Registration*> bound_to(sip::ConnectionId connection);

    // ---- our own addresses
    /// While an access address of ours is not usable nothing is sent to the phones behind it; they keep their
    /// registrations.
    void suspend(const Address& gateway) { suspended_.insert(gateway); }
    void resume(const Address& gateway) { suspended_.erase(gateway); }
    bool is_suspended(const Address& gateway) const { return suspended_.contains(gateway); }

    // ---- sets
    /// A fresh number within `mask`, not in use.
    SetNumber next_number(std::uint32_t mask);
    /// Numbers up to this one were given out by the process before; new ones follow it.
    void continue_numbers_after(SetNumber number) { last_number_ = std::max(last_number_, number.value); }
    /// Moves a set into a registration (at the end of its list).
    SaSet& add_set(Registration& registration, std::unique_ptr<SaSet> set);
    std::unique_ptr<SaSet> take_set(Registration& registration, SetNumber number);
    FlowOwner find_set(SetNumber number);
    /// Who owns a flow: for TLS the bound connection; else the mark; for connections that carry no mark the four-tuple.
    /// The first flow of a set with SetParameters::inner settles which address its phone has inside.
    FlowOwner owner_of(const sip::Flow& flow);
    /// The phone at the other end, 0 when it is nobody's that is known. It stands for IMPI and instance: the contacts
    /// of one device (an emergency contact beside another, several reg-ids) are one, so are its sets before and after
    /// a re-registration, and a temporary set is its own already. A datagram that leaves has no mark: the two ends
    /// tell whose SA it takes.
    sip::OwnerId phone_of(const sip::Flow& flow, sip::Direction direction);
    std::size_t set_count() const { return owners_.size(); }
    std::size_t sets_at(const Address& ue) const;
    void for_each_set_at(const Address& ue, const std::function<void(const SaSet&)>& f) const;
    /// True when a live set has this UE address and client port towards that protected server port (B-22, G-25).
    bool uses_client_port(const Address& ue, Port port_uc, const Endpoint& gateway_server) const;
    /// Registrations that have a set with this UE address and client port towards one of these server ports.
    std::vector<Registration*> at_client_port(const Address& ue, Port port_uc, const Address& gateway,
                                              const std::vector<Port>& server_ports);
    /// True when an SA of a live set goes from `local` to `remote`: nothing else may leave a protected port.
    bool covers(const Endpoint& local, const Endpoint& remote) const { return by_pair_.contains({local, remote}); }
    /// True when a live set has this UE address and server port from that protected client port.
    bool uses_server_port(const Address& ue, Port port_us, const Endpoint& gateway_client) const;

private:
    struct Owner {
        SaSet* set;
        Registration* registration;
        Challenge* challenge;
    };
    /// Registrations in the order of their keys, which they have themselves.
    struct ByKey {
        using is_transparent = void;
        static const ContactKey& key(const std::unique_ptr<Registration>& of) { return of->key; }
        static const ContactKey& key(const ContactKey& of) { return of; }
        bool operator()(const auto& a, const auto& b) const { return key(a) < key(b); }
    };
    using Pair = std::pair<Endpoint, Endpoint>;  ///< gateway end, UE end
    struct PairHash {
        std::size_t operator()(const Pair& p) const noexcept;
    };
    /// All (gateway end, UE end) that SAs of the set are for: two, four for a phone that may have either address.
    static std::vector<Pair> pairs_of(const SaSet& set);
    void learn_inner(const FlowOwner& owner, const sip::Flow& flow);
    void index(SaSet& set, Registration* registration, Challenge* challenge);
    void unindex(const SaSet& set);
    sip::OwnerId phone_of(const ContactKey& contact) const;

    std::map<ChallengeKey, std::unique_ptr<Challenge>> challenges_;
    std::set<std::unique_ptr<Registration>, ByKey> registrations_;
    std::unordered_map<std::string_view, Registration*> by_token_;  ///< the registration has the text
    std::unordered_map<RegistrationNumber, Registration*> by_number_;
    std::unordered_multimap<sip::ConnectionId, Registration*> by_connection_;  ///< contacts of one user (B-3)
    std::unordered_map<SetNumber, Owner> owners_;
    std::unordered_map<Pair, SetNumber, PairHash> by_pair_;
    BySource<const Challenge*> challenges_of_;
    std::unordered_map<Address, std::vector<SetNumber>> sets_at_;
    std::set<Address> suspended_;
    std::uint32_t last_number_ = 0;
    std::uint64_t last_registration_ = 0;
    SipHashKey phone_key_{};
    std::vector<std::function<void(const ContactKey&)>> change_handlers_;
    std::vector<std::function<void(const Registration&)>> taken_handlers_;
};

}  // namespace gmgate::daemon
