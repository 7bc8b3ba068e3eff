// The node that serves writes what the other ones need: one record for each registration, sealed, in the shared store.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include <asio/any_io_executor.hpp>
#include <asio/steady_timer.hpp>

#include "base/clock.h"
#include "base/task.h"
#include "daemon/cluster/record.h"
#include "daemon/cluster/redis.h"
#include "daemon/registrations/table.h"
#include "xfrm/sealing.h"

namespace gmgate::daemon {

struct ReplicaCounters {
    std::uint64_t written = 0, erased = 0;  ///< records
    std::uint64_t unreplicated = 0;         ///< answers that left before their record was in the store
    std::uint64_t failed = 0;               ///< records that could not be written; they are when the store is back
};

/// Names of the keys in the shared store.
struct ClusterKeys {
    explicit ClusterKeys(const std::string& cluster)
        : owner("gmgate:{" + cluster + "}:owner"),
          alive("gmgate:{" + cluster + "}:alive"),
          records("gmgate:{" + cluster + "}:records"),
          changes("gmgate:{" + cluster + "}:changes") {}
    std::string owner;    ///< hash: epoch, node, boot, since; changes: entries of that stream so far; whole: see kWhole
    std::string alive;    ///< node, for three seconds
    std::string records;  ///< hash: record_field() → encode_record()
    /// Stream of the last kChangesKept or more changes, each written with what it tells of: n (counts them), and f (a
    /// field of `records` was written or erased), e (that epoch begins) or w (`records` holds everything).
    std::string changes;
};

inline constexpr const char* kChangesKept = "20000";

/// Every write is refused by the store when another node has taken the next epoch: the fence.
class Replica {
public:
    struct Parts {
        asio::any_io_executor executor;
        Table& table;
        Redis& redis;
        xfrm::Sealing& sealing;
        const Clock& clock;
        ClusterKeys keys;
        std::function<void()> on_fenced;  ///< another node has taken over
    };
    static constexpr milliseconds kPatience{20};

    explicit Replica(Parts parts) : p_(std::move(parts)) {}

    /// From now on this node writes, as the owner of that epoch. 0: it is not known yet, and nothing is written.
    void serve(std::uint64_t epoch) { epoch_ = epoch; }
    /// The record is in the store when this completes, or kPatience is over: then it follows, and is counted.
    Task<void> save(ContactKey key);
    /// The same for a challenge, before its 401 leaves: the phone may answer it at the next node.
    Task<void> save_challenge(ChallengeKey key);
    /// A temporary set has ended; one that became a registration's needs no word.
    void challenge_ended(SetNumber number);
    /// Something of it changed, ended, or its sequence numbers went on; written soon.
    void changed(const ContactKey& key);
    /// Every registration anew (`all`) or those that have no record, and records of none erased but `kept` ones, some
    /// hundred at a time.
    Task<void> level(std::vector<std::string> kept, bool all);
    std::size_t waiting() const { return work_.size(); }
    const ReplicaCounters& counters() const { return counters_; }

private:
    struct Waiter {
        explicit Waiter(const asio::any_io_executor& executor) : timer(executor) {}
        asio::steady_timer timer;
        bool is_done = false;
    };
    struct Work {
        bool is_queued = false, is_busy = false, is_wanted_again = false;
        std::vector<std::shared_ptr<Waiter>> waiters;
    };
    void push(const ContactKey& key, std::shared_ptr<Waiter> waiter);
    void pump();
    Task<void> run(ContactKey key);
    Task<bool> write(ContactKey key);
    bool is_waiting(const ContactKey& place) const;
    std::vector<std::uint32_t> answered_by(const ContactKey& key) const;
    Task<void> tell_whole();
    Task<std::optional<std::string>> record_of(ContactKey key);
    Task<std::optional<std::string>> record_of_challenge(ChallengeKey key);
    Task<std::optional<std::string>> sealed(StoredRegistration stored, std::optional<HandedChallenge> challenge);

    Parts p_;
    std::uint64_t epoch_ = 0;
    std::map<ContactKey, Work> work_;
    std::deque<ContactKey> queue_;
    std::unordered_map<std::uint32_t, ContactKey> challenges_;  ///< written ones, by the number of their set
    std::size_t busy_ = 0;
    ReplicaCounters counters_;
    bool has_logged_seal_ = false, is_levelling_ = false;
};

}  // namespace gmgate::daemon
