// What a node that stands by does: it keeps the sets of the node that serves in its own kernel, ahead of the day on
// which the addresses come, so that a take-over costs the kernel nothing.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include <asio/any_io_executor.hpp>
#include <asio/steady_timer.hpp>

#include "daemon/cluster/record.h"
#include "daemon/cluster/redis.h"
#include "daemon/cluster/replica.h"
#include "daemon/config/cluster.h"
#include "xfrm/kernel.h"
#include "xfrm/netlink/monitor.h"

namespace gmgate::daemon {

/// What this node goes on with.
struct TakenRecords {
    struct Waiting {
        StoredRegistration row;  ///< contact, token, and one temporary set
        HandedChallenge challenge;
    };
    std::vector<StoredRegistration> registrations;
    std::vector<Waiting> challenges;
};

struct FollowerNumbers {
    std::uint64_t registrations = 0, sets = 0;  ///< held ready
    std::uint64_t behind = 0;                   ///< changes that were read and are not in the kernel yet
    std::uint64_t readings = 0;                 ///< of all records: the first one, and after a gap or a break
    std::uint64_t installed = 0, moved = 0, removed = 0, refused = 0;  ///< sets, since the start
    bool is_level = false;                                             ///< follows without a gap
};

/// Reads all records once, and then the stream of changes. A gap in its numbers, or a connection that went, begins with
/// all records again; those that are held already only have their sequence numbers moved. At most kTogether records
/// are under way to the kernel, and no more is read before they are there.
class Follower {
public:
    /// All outlive it.
    struct Parts {
        asio::any_io_executor executor;
        const Config& config;
        const ClusterConfig& cluster;
        xfrm::Sealing& sealing;
        xfrm::Kernel& kernel;
        const Clock& clock;
        std::string boot;  ///< of this machine: its own records of before are not followed
        /// Removes what this node has of an earlier time from its kernel.
        std::function<Task<Result<void>>()> clear_kernel;
    };
    explicit Follower(Parts parts);
    Follower(const Follower&) = delete;
    Follower& operator=(const Follower&) = delete;

    /// From now on, as soon as another node serves. More than once does no harm.
    void start();
    /// The kernel holds what another node had, and nothing of an earlier time of this one.
    bool has_followed() const { return is_cleared_; }
    /// Of the node that serves, as far as is known.
    std::uint64_t epoch() const { return epoch_; }
    /// This node tries to take `epoch`, whose beginning is told in the stream; 0: it did not.
    void expect(std::uint64_t epoch) { taken_ = epoch; }
    /// This node has taken `epoch`: completes when everything that was written before is in the kernel and counts as
    /// that epoch does, or nothing has come for kGiveUp. Rows come with those sets that the kernel has. It follows no
    /// more then.
    Task<TakenRecords> take_over(std::uint64_t epoch);
    /// The same without the store: what is held.
    Task<TakenRecords> take_what_is_held();
    /// Fields of records that no key of ours opens: not ours to erase.
    std::vector<std::string> unopened() const { return {unopened_.begin(), unopened_.end()}; }
    /// Somebody else deleted an SA, or its lifetime is over: it is looked at, and installed again when it is missing.
    void heard(const xfrm::KernelEvent& event);
    FollowerNumbers numbers() const;

private:
    struct Held {
        StoredRegistration row;  ///< with those of its sets that the kernel has
        std::optional<HandedChallenge> challenge{};
        std::uint64_t epoch = 0;  ///< that they count for
        std::uint64_t round = 0;  ///< reading of all records in which it was seen last
    };
    struct UnderWay;
    Task<void> run();
    Task<bool> clear();
    Task<bool> read_all();
    Task<bool> scan();
    Task<bool> read_changes();
    Task<bool> read_records(std::vector<std::string> fields);
    Task<void> begin(std::string field, std::optional<std::string> octets);
    Task<void> wait_below(std::size_t limit);
    Task<void> apply(std::string field, std::optional<std::string> octets);
    Task<void> hold(std::string field, ClusterRecord record);
    Task<Result<void>> install(xfrm::SealedInstall order);
    Task<Result<void>> move(xfrm::SealedInstall order, bool is_longer);
    std::optional<StoredSet> had(Held& held, const StoredSet& set);
    Task<void> remove_others(Held& held, const StoredRegistration& now);
    Task<void> remove(xfrm::SetParameters parameters);
    Task<void> remove_leftovers();
    Task<void> end(std::string field);
    Task<void> end_unseen();
    Task<bool> look_again();
    Task<void> wait(milliseconds time);
    Task<void> wait_for_the_end();
    TakenRecords taken();
    bool may_follow(const std::map<std::string, std::string>& owner) const;
    bool is_done() const { return is_stopped_ || (taken_ != 0 && is_level_ && level_epoch_ >= taken_); }
    std::uint64_t next_epoch() const { return taken_ != 0 ? taken_ : epoch_ + 1; }
    void refuse(const std::string& field, const std::string& why);

    Parts p_;
    ClusterKeys keys_;
    std::unique_ptr<Redis> redis_;  ///< its own: a read that blocks would hold everything else up
    asio::steady_timer pause_, one_done_;
    std::map<std::string, Held> held_;
    std::unordered_map<std::uint32_t, std::string> by_mark_;
    std::set<std::string> doubtful_, unopened_;
    std::vector<xfrm::SetParameters> leftovers_;
    std::string position_ = "0-0";  ///< in the stream
    std::uint64_t number_ = 0;      ///< of the change at `position_`
    std::uint64_t epoch_ = 0, level_epoch_ = 0, taken_ = 0, round_ = 0, applied_ = 0;
    std::size_t under_way_ = 0;
    FollowerNumbers numbers_;
    bool is_started_ = false, is_running_ = false, is_stopped_ = false, is_cleared_ = false, is_level_ = false,
         has_unseen_ = false;
};

}  // namespace gmgate::daemon
