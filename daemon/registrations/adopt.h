// After a restart: the rows of the store against the SAs of the kernel. What matches lives on, what does not is removed
// on both sides.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "daemon/config/access.h"
#include "daemon/registrations/expiry.h"
#include "daemon/registrations/sa_sets.h"
#include "daemon/registrations/stored.h"
#include "daemon/registrations/table.h"
#include "xfrm/kernel.h"

namespace gmgate::daemon {

struct AdoptParts {
    const Config& config;
    const AccessMap& accesses;
    Table& table;
    SaSets& sets;
    Expiry& expiry;
    xfrm::SpiPool& spis;
    xfrm::Kernel& kernel;
    Counters& counters;
    const Clock& clock;
};

/// Used once, at start, in the order of its functions. Cost and memory grow with the number of rows and SAs alone: one
/// pass over each.
class Adoption {
public:
    explicit Adoption(AdoptParts parts) : p_(parts) {}

    /// Takes one row of the store.
    void add(StoredRegistration row);
    /// Asks the kernel for its SAs and deletes those of ours that no row explains or of which a sibling is missing: a
    /// set lives whole or not at all. After this the kernel holds what the registrations need.
    Task<Result<void>> match_kernel();
    /// In its place for rows whose sets are known to be in the kernel, of a node that had them ready: it is not asked.
    /// Those that the configuration does not serve are removed.
    Task<Result<void>> believe();
    /// Puts what is whole into the table, with its SPIs and numbers reserved and its lifetimes watched. No await:
    /// nobody sees a part. `flow_of`: the open connection that was taken over, for a registration over TLS.
    void commit(const std::function<std::optional<sip::Flow>(sip::ConnectionId)>& flow_of);
    /// Registrations that were dropped, for the store to forget.
    const std::vector<ContactKey>& dropped() const { return dropped_; }

    struct Summary {
        std::size_t rows = 0, registrations = 0, sets = 0, dropped = 0, sas_removed = 0, foreign = 0;
    };
    const Summary& summary() const { return summary_; }

private:
    struct Candidate {
        StoredRegistration row;
        bool has_lost_a_set = false;
    };
    struct Place {
        std::size_t candidate = 0, set = 0;
        std::uint8_t seen = 0;                          ///< a bit for each of the four SAs
        std::chrono::system_clock::time_point limit{};  ///< when the first of the four ends in the kernel
        Port port_uenc{};                               ///< as the kernel's outbound SAs have it, in mode udp_enc_tun
    };
    void see(const xfrm::SaReport& report);
    bool is_ours(const xfrm::SaReport& report) const;
    std::optional<std::string> obstacle(const StoredSet& set) const;
    void drop(const StoredRegistration& row, std::string_view why);

    AdoptParts p_;
    std::vector<Candidate> candidates_;
    std::unordered_map<std::uint32_t, Place> places_;  ///< by mark
    std::vector<xfrm::SaId> stale_;
    std::vector<ContactKey> dropped_;
    Summary summary_;
};

}  // namespace gmgate::daemon
