// What operators know from other session borders: how many registrations, attempts, successes and failures there were,
// now, in this period and ever; and how long registrations take. Fed by the decision records, so that the flow itself
// does nothing for it.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>

#include "base/clock.h"
#include "daemon/observe/histogram.h"
#include "daemon/observe/trace.h"

namespace gmgate::daemon {

/// A number of events: in the current period, ever, and most in one period.
struct Tally {
    std::uint64_t period = 0, lifetime = 0, most = 0;
    void add() {
        ++period;
        ++lifetime;
        most = period > most ? period : most;
    }
};

/// Agreements on ipsec-3gpp at one sip-interface.
struct AgreementTally {
    Tally attempts, successes, failures;
    std::map<std::string, Tally> reasons{};  ///< of failures: a check's word, "core 403", "unanswered"
};

class RegistrationStatistics {
public:
    static constexpr std::chrono::minutes kPeriod{15};
    static constexpr std::size_t kReasons = 64;        ///< of one interface; more count as "other"
    static constexpr std::size_t kChallenges = 65536;  ///< whose beginning is remembered

    explicit RegistrationStatistics(const Clock& clock) : clock_(&clock), period_begun_(clock.now()) {}

    /// One REGISTER was decided; `active` registrations stand now.
    void record(const DecisionRecord& record, std::size_t active);
    /// A set ended without an answer of its phone.
    void unanswered(SetNumber set, const std::string& realm);
    /// Begins a new period when it is time, and looks at the number of registrations.
    void look(std::size_t active);

    std::chrono::seconds in_period() const;
    std::size_t most_active() const { return most_active_; }
    std::size_t most_active_in_period() const { return most_active_in_period_; }
    const Tally& registered() const { return registered_; }
    const Tally& refreshed() const { return refreshed_; }
    const Tally& challenged() const { return challenged_; }
    const Tally& refused() const { return refused_; }
    const std::map<std::string, AgreementTally>& by_realm() const { return by_realm_; }

    /// Durations by phase: "challenge", REGISTER to 401; "phone", 401 to the REGISTER over the SAs; "answer", that one
    /// to its 200; "whole", all three.
    const std::map<std::string, Histogram>& durations() const { return durations_; }

private:
    struct Begun {
        std::chrono::system_clock::time_point first, challenged;
    };
    void fail(AgreementTally& tally, const std::string& reason);
    void measure(const DecisionRecord& record);

    const Clock* clock_;
    TimePoint period_begun_;
    std::size_t most_active_ = 0, most_active_in_period_ = 0;
    Tally registered_, refreshed_, challenged_, refused_;
    std::map<std::string, AgreementTally> by_realm_;  ///< as many as there are interfaces
    std::map<std::string, Histogram> durations_;
    std::unordered_map<SetNumber, Begun> begun_;
};

/// The set in "temporary set 7"; 0 when the REGISTER came over something else.
SetNumber temporary_set_of(std::string_view over);
/// Why a REGISTER was refused, as one word or two that repeat: the check that failed, else the core's answer.
std::string failure_reason(const DecisionRecord& record);

}  // namespace gmgate::daemon
