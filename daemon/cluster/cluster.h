// One of several gateways: waits until it has the addresses, takes the next epoch, installs what the node before left,
// and hands on what it has itself. The page docs/cluster.md tells the whole.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <asio/any_io_executor.hpp>
#include <asio/steady_timer.hpp>
#include <nlohmann/json.hpp>

#include "daemon/cluster/record.h"
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
    const Clock& clock;
    /// Another node serves now, or the addresses are gone: this process is to end, and the next one stands by.
    std::function<void(std::string why)> on_lost;
};

/// For metrics; what `gmctl cluster` shows has more.
struct ClusterNumbers {
    bool serves = false;       ///< owner or alone
    bool is_degraded = false;  ///< the shared store does not answer
    std::uint64_t epoch = 0, waiting = 0, refused = 0, sets_installed = 0;
    ReplicaCounters replica;
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
    /// Reads the records and installs their sets; rows come back with those sets that the kernel has.
    Task<std::vector<StoredRegistration>> install_records();
    /// The registrations are in the table and the doors open: from now on changes are written, and everything once.
    void serve();

    /// See xfrm::Sealing::dialog_key().
    Task<Result<SipHashKey>> dialog_key() { return p_.sealing.dialog_key(); }
    /// See Replica::save().
    Task<void> save(ContactKey key) { return replica_.save(std::move(key)); }
    void changed(const ContactKey& key) { replica_.changed(key); }
    /// Something came over a set of it: the inbound numbers are written within a second.
    void used(const ContactKey& key) { used_.insert(key); }

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
    void level();
    void address_changed(const xfrm::AddressWatch::Change& change);
    Task<void> wait(milliseconds time);
    Task<std::vector<std::pair<std::string, std::string>>> read_records();
    /// Records on their way into the kernel.
    struct Installing {
        explicit Installing(const asio::any_io_executor& executor) : one_done(executor) {}
        std::vector<StoredRegistration> rows;
        std::size_t under_way = 0;
        asio::steady_timer one_done;  ///< cancelled with each
    };
    static Task<void> wait_below(Installing& all, std::size_t limit);
    Task<void> install_one(Installing& all, std::size_t index, ClusterRecord record, std::string field);
    Task<void> install(StoredRegistration& row, const xfrm::RecordDigest& digest,
                       const std::vector<xfrm::SealedKeys>& seals, const std::string& field);
    void refuse(const std::string& field, const std::string& why);

    ClusterParts p_;
    ClusterKeys keys_;
    Redis redis_;
    Replica replica_;
    xfrm::AddressWatch addresses_;
    asio::steady_timer changed_;  ///< cancelled when something of the waiting may be over
    std::set<Address> missing_;
    std::set<ContactKey> used_;
    std::vector<std::string> unopened_;  ///< fields of records that no key of ours opens: not ours to erase
    std::string boot_, state_ = "starting", trouble_ = "no connection yet";
    std::uint64_t epoch_ = 0, records_refused_ = 0, sets_installed_ = 0;
    std::chrono::system_clock::time_point since_{};
    bool is_lost_ = false, is_serving_ = false;
};

}  // namespace gmgate::daemon
