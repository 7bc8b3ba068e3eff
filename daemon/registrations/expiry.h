// Ends what has run out: temporary sets, old sets, registrations. The kernel's own hard limits lie behind these as a
// safety net.
#pragma once

#include "base/clock.h"
#include "base/task.h"
#include "daemon/config/config.h"
#include "daemon/observe/counters.h"
#include "daemon/registrations/due_times.h"
#include "daemon/registrations/sa_sets.h"
#include "daemon/registrations/table.h"

namespace gmgate::daemon {

class Expiry {
public:
    Expiry(const Config& config, Table& table, SaSets& sets, sip::Transports& transports, Counters& counters,
           const Clock& clock);

    /// Looks at a set at `when`; call it whenever a set's `expires` was set or shortened. A later `expires` is noticed
    /// by itself.
    void watch(SetNumber number, TimePoint when);
    /// The same for a registration. Its service ends with it, however long its SAs could live: a refresh may be granted
    /// less time than the one before, and the lifetime of SAs is never decreased (B-51).
    void watch(const Registration& registration, TimePoint when);
    /// Row "message over the established-not-yet-used set" of table C-44: a message that came over a set tells that the
    /// phone uses it. Not for retransmissions of the REGISTER that established it: a phone that repeats it has not seen
    /// the 200 yet.
    void used(Registration& registration, SetNumber number);
    /// Runs until the executor stops: once a second everything that is due.
    Task<void> run();
    /// One pass over what is due now.
    Task<void> sweep();
    /// How many sets and registrations are watched.
    std::size_t watched() const { return due_.size() + due_contacts_.size(); }

private:
    Task<void> sweep_contacts();
    Task<void> end_service(ContactKey key);
    Task<void> end_challenge(ChallengeKey key);
    Task<void> end_set(ContactKey key, SetNumber number);
    void prepare_handover(Registration& registration, const SaSet& set);

    const Config& config_;
    Table& table_;
    SaSets& sets_;
    sip::Transports& transports_;
    Counters& counters_;
    const Clock& clock_;
    DueTimes<SetNumber> due_;
    DueTimes<RegistrationNumber> due_contacts_;
};

}  // namespace gmgate::daemon
