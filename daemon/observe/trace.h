// Why a phone got what it got: one structured record per REGISTER, kept in a bounded ring per UE for the operator's
// tools.
#pragma once

#include <chrono>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <ranges>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/endpoint.h"
#include "base/patterned_text.h"
#include "base/types.h"
#include "xfrm/sa.h"
#include "xfrm/spi_pool.h"

namespace gmgate::daemon {

/// One check with its verdict.
struct CheckVerdict {
    std::string check;  ///< constant word: "via", "security-verify"…
    bool passed = true;
    std::string detail;
};

/// Everything that was decided about one REGISTER. Never holds keys, digest responses or nonces.
struct DecisionRecord {
    std::chrono::system_clock::time_point time;
    Impi impi;
    std::string ue;  ///< "192.0.2.7:5060/UDP"
    std::string realm_id;
    std::string over;    ///< "unprotected", "temporary set 7", "established set 7"
    std::string offer;   ///< Security-Client as received
    std::string policy;  ///< sec-agree-pref and confidentiality
    std::string choice;  ///< "ipsec-3gpp hmac-sha-1-96/aes-cbc"
    std::string rule;    ///< why this choice
    std::vector<CheckVerdict> checks;
    std::string integrity_protected;    ///< value sent to the core, "absent"
    int core_status = 0;                ///< final response of the core, 0: none was asked or none came
    std::string security_associations;  ///< SPIs and ports of the set
    SetNumber set;                      ///< the set that the 401 came with, 0: none
    xfrm::SpiPair own_spis{};           ///< of that set
    int answer = 0;                     ///< status sent to the UE, 0: nothing was sent
    std::string why;                    ///< sentence about the answer
};

/// A decision record as the rings keep it: the words that the records of other phones have in common are kept once.
class KeptRecord {
public:
    KeptRecord(const DecisionRecord& record, TextPatterns& patterns);
    /// As it was, with no IMPI.
    DecisionRecord record() const;
    const xfrm::SpiPair& own_spis() const { return own_spis_; }
    /// What it takes, beside the patterns of its words.
    std::size_t octets() const { return sizeof *this - sizeof words_ + words_.octets(); }

private:
    std::chrono::system_clock::time_point time_;
    PatternedText words_;  ///< all texts, one after the other
    Endpoint end_;         ///< of DecisionRecord::ue; port 0: the words have it
    SetNumber set_;
    xfrm::SpiPair own_spis_;
    std::int16_t core_status_, answer_;
};

/// A REGISTER that was passed to the core and has no answer yet.
struct PendingRegister {
    std::chrono::system_clock::time_point since;
    Impi impi;
    std::string ue;  ///< as in DecisionRecord
    std::string over;
};

/// A set that was removed before its phone had answered, with the kernel's counters of that moment.
struct UnansweredSet {
    SetNumber number;
    std::chrono::system_clock::time_point ended;
    xfrm::SetParameters parameters;
    std::vector<xfrm::SaReport> sas;
};

class Trace {
public:
    using RecordHandler = std::function<void(const DecisionRecord&)>;
    /// Destroying it ends the subscription.
    using Subscription = std::shared_ptr<RecordHandler>;

    static constexpr std::size_t kFieldLimit = 512;   ///< octets kept of a field: phones and strangers write them
    static constexpr std::size_t kOfferLimit = 2048;  ///< of the offer, which names every algorithm
    static constexpr std::size_t kOctets = 64 * 1024 * 1024;  ///< that all records may take

    Trace(std::size_t records_per_ue, std::size_t ues, std::size_t octets = kOctets)
        : records_per_ue_(records_per_ue), ues_(ues), octet_limit_(octets) {}

    /// Keeps the record, its fields cut, and writes one log line; the least recently heard UE gives way when the table
    /// is full or its octets are used up. `also`: the phone that sent it, when it names another; the record is kept for
    /// both.
    void add(DecisionRecord record, const Impi& also = {});
    /// Between the two the REGISTER waits for the core. As many as there are transactions.
    std::uint64_t core_asked(PendingRegister pending);
    void core_answered(std::uint64_t number) { pending_.erase(number); }
    /// Oldest first.
    std::vector<PendingRegister> pending(const Impi& impi) const;
    /// Oldest first; empty for an unknown IMPI.
    std::vector<DecisionRecord> of(const Impi& impi) const;
    /// Kept with the records of the phone whose 401 came with that set; nothing happens when they are gone.
    void add(UnansweredSet set);
    /// All whose records are kept, the most recently heard first.
    auto impis() const {
        return rings_ | std::views::transform([](const Ring& ring) -> const Impi& { return ring.impi; });
    }
    /// Whose set had this SPI of ours, as far as records tell.
    std::optional<Impi> whose_spi(Spi spi) const;
    std::vector<UnansweredSet> unanswered(const Impi& impi) const;
    /// Calls `handler` for each record from now on, until the subscription is destroyed.
    Subscription on_record(RecordHandler handler);
    std::size_t ue_count() const { return rings_.size(); }
    /// What the records take, about.
    std::size_t octets() const { return octets_ + patterns_.octets(); }

private:
    struct Ring {
        Impi impi;
        std::vector<KeptRecord> records;  ///< oldest first
        std::vector<UnansweredSet> unanswered;
    };
    using Rings = std::list<Ring>;
    void keep(const DecisionRecord& record);
    Ring& ring_of(const Impi& impi);
    const Ring* find(const Impi& impi) const;
    void forget(const Ring& ring, const KeptRecord& record);
    void forget_oldest_ue();
    std::size_t records_per_ue_, ues_, octet_limit_, octets_ = 0;
    std::uint64_t last_pending_ = 0;
    std::map<std::uint64_t, PendingRegister> pending_;
    TextPatterns patterns_;  ///< of the records
    Rings rings_;            ///< most recently heard first
    std::unordered_map<std::string_view, Rings::iterator> by_impi_;
    std::unordered_map<Spi, Ring*> spis_;  ///< of ours, of the sets that records name; the ring has such a record
    std::vector<std::weak_ptr<RecordHandler>> handlers_;  // owned by the subscribers
};

}  // namespace gmgate::daemon
