// One of several gateways: waits until it has the addresses, takes the next epoch, installs what the node before left,
// and hands on what it has itself. The page docs/cluster.md tells the whole.
#pragma once

#include <functional>
#include <set>
#include <string>
#include <vector>

#include <asio/any_io_executor.hpp>
#include <asio/steady_timer.hpp>
#include <nlohmann/json.hpp>

#include "daemon/cluster/follower.h"
#include "daemon/cluster/replica.h"
#include "daemon/config/cluster.h"
#include "daemon/registrations/stored.h"
#include "xfrm/netlink/address_watch.h"

namespace gmgate::daemon {

/// All outlive it.
struct ClusterParts {
    asio::any_io_executor executor;
    const Config& config;
    const ClusterConfig& cluster;
    Table& table;
    xfrm::Sealing& sealing;
    xfrm::Kernel& kernel;
    const Clock& clock;
    /// See Follower::Parts.
    std::function<Task<Result<void>>()> clear_kernel;
    /// The addresses may come at any time and are another node's now (true), or are here while another node serves:
    /// connections are accepted by nobody (false).
    std::function<void(bool is_away)> on_standby;
    /// Another node serves now, or the addresses are gone: this process is to end, and the next one stands by.
    std::function<void(std::string why)> on_lost;
};

/// For metrics; what `gmctl cluster` shows has more.
struct ClusterNumbers {
    bool serves = false;       ///< owner or alone
    bool is_degraded = false;  ///< the shared store does not answer
    std::uint64_t epoch = 0, waiting = 0;
    ReplicaCounters replica;
    FollowerNumbers follower;
};

class Cluster {
public:
    explicit Cluster(ClusterParts parts);
    Cluster(const Cluster&) = delete;
    Cluster& operator=(const Cluster&) = delete;

    /// Where what this node is to serve comes from.
    enum class Source { own_store, other_node };
    /// Completes when the addresses are here and nobody else serves. Without the shared store for kAlonePatience it
    /// serves with what it has itself. Errors: the addresses cannot be watched.
    Task<Result<Source>> await_ownership();
    /// What the node before had, with those sets that the kernel has: held ready, or installed now.
    Task<TakenRecords> take_records();
    /// Some of the addresses have been here for so long before this node served that what came in meanwhile is old.
    bool has_waited() const { return has_waited_; }
    /// The registrations are in the table and the doors open: from now on changes are written, and everything once.
    void serve();

    /// See xfrm::Sealing::dialog_key().
    Task<Result<SipHashKey>> dialog_key() { return p_.sealing.dialog_key(); }
    /// See Replica::save().
    Task<void> save(ContactKey key) { return replica_.save(std::move(key)); }
    /// See Replica::save_challenge().
    Task<void> save_challenge(ChallengeKey key) { return replica_.save_challenge(std::move(key)); }
    void challenge_ended(SetNumber number) { replica_.challenge_ended(number); }
    void changed(const ContactKey& key) { replica_.changed(key); }
    /// Something came over a set of it: the inbound numbers are written within a second.
    void used(const ContactKey& key) { used_.insert(key); }
    /// See Follower::heard().
    void heard(const xfrm::KernelEvent& event) { follower_.heard(event); }

    ClusterNumbers numbers() const;
    nlohmann::json status() const;

private:
    enum class Claim { own, taken, busy, unreachable };
    Task<Claim> claim(bool have_come);
    Task<Claim> take(std::uint64_t before);
    std::vector<std::string> as_owner(const char* script, std::vector<std::string> epochs) const;
    Task<void> keep_alive();
    Task<bool> beat();
    Task<void> come_back();
    Task<void> settle_alone();
    void lose(std::string why);
    void level(bool all);
    void stand_by(const char* state, const std::string& why);
    void address_changed(const xfrm::AddressWatch::Change& change);
    Task<void> wait(milliseconds time);
    ClusterParts p_;
    ClusterKeys keys_;
    Redis redis_;
    std::string boot_;
    Replica replica_;
    Follower follower_;
    xfrm::AddressWatch addresses_;
    asio::steady_timer changed_;  ///< cancelled when something of the waiting may be over
    std::set<Address> missing_;
    std::set<ContactKey> used_;
    std::string state_ = "starting", trouble_ = "no connection yet";
    std::uint64_t epoch_ = 0;
    std::chrono::system_clock::time_point since_{};
    TimePoint first_here_{};           ///< when the first of the addresses came
    bool has_others_records_ = false;  ///< what it serves is what the store has
    bool is_lost_ = false, is_serving_ = false, has_waited_ = false;
};

}  // namespace gmgate::daemon
