// The reg event package towards the S-CSCF (TS 24.229 §5.2.3, RFC 3680): the gateway learns that the network has ended
// or shortened a registration, and ends its SAs or TLS binding. On with [core] reg-event = true.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include <asio/any_io_executor.hpp>

#include "base/clock.h"
#include "base/task.h"
#include "daemon/config/config.h"
#include "daemon/core/core_link.h"
#include "daemon/observe/counters.h"
#include "daemon/reg_event/reg_news.h"
#include "daemon/reg_event/retry.h"
#include "daemon/registrations/expiry.h"
#include "daemon/registrations/table.h"
#include "sip/transaction/transactions.h"

namespace gmgate::daemon {

/// One subscription for each IMPI with a registration, as long as it has one. One loop, one thread.
///
/// Subscriptions are not kept over a restart: each is made anew, at the pace below, and so brings the whole state, with
/// what happened meanwhile. A NOTIFY of a dialog that the process before had gets 481, by which the S-CSCF ends that
/// subscription (RFC 6665 §4.2.2).
class RegEvents {
public:
    static constexpr std::uint32_t kPerSecond = 100;  ///< SUBSCRIBEs, of all users together
    static constexpr std::size_t kAtOnce = 200;       ///< SUBSCRIBEs that wait for an answer, at most

    RegEvents(asio::any_io_executor executor, const Config& config, Table& table, Expiry& expiry, CoreLink& core,
              Counters& counters, const Clock& clock);

    /// A REGISTER of this contact was accepted: subscribes when it is the user's first (C-51), or when the S-CSCF has
    /// refused a subscription until then. Emergency contacts are none of it.
    void registered(const Registration& registration);
    /// True for a NOTIFY of one of our subscriptions' dialogs, those of an earlier process included.
    bool is_ours(const sip::Message& request) const;
    /// A NOTIFY of ours (C-52).
    Task<void> notify(std::shared_ptr<sip::ServerTransaction> transaction);
    /// What is due, again and again: refreshes, retries, and the end of subscriptions whose user has left. Runs until
    /// the executor stops.
    Task<void> run();
    /// One pass over what is due now, as far as the pace allows.
    void sweep();

    std::size_t size() const { return subscriptions_.size(); }
    std::size_t under_way() const { return under_way_; }

private:
    /// What tells one subscription's dialogs from all others: random, and new with each dialog.
    using CallNumber = std::uint64_t;
    struct Subscription {
        std::string impu;  ///< default public identity
        CallNumber call = 0;
        std::uint64_t tag = 0;                 ///< ours
        std::string their_tag, target, route;  ///< route set of the dialog, as Route has it
        std::uint32_t cseq = 0, their_cseq = 0;
        std::optional<std::uint32_t> version;  ///< of the last document
        TimePoint due = TimePoint::max();      ///< to be looked at
        TimePoint ask_at = TimePoint::max();   ///< and asked (again)
        TimePoint not_before{};                ///< a REGISTER does not make the next try earlier
        TimePoint stood_from{};                ///< no failure since then
        TimePoint until{};                     ///< granted
        std::uint8_t failures = 0;
        bool under_way = false;  ///< a SUBSCRIBE waits for its answer
        bool waits_for_register = false;
        bool wants_full = false;  ///< documents were lost: the next full one counts, whatever its version
        bool is_told = false;     ///< the log has it that this one fails
    };
    static constexpr std::string_view kUnnoticed = "until then nobody notices when the network de-registers this user";
    using Entry = std::map<Impi, Subscription>::value_type;

    Entry* find(CallNumber call);
    Entry* find(std::string_view call_id) const;
    std::string call_id(const Subscription& subscription) const;
    const Registration* registered_as(const Impi& impi, seconds left = {});
    bool is_registered(const Impi& impi, seconds left = {}) { return registered_as(impi, left) != nullptr; }

    void begin_dialog(Entry& entry);
    void put(Subscription& subscription, TimePoint due);
    void ask_at(Subscription& subscription, TimePoint when);
    void again(Subscription& subscription, const Ending& ending);
    void ask_for_all(Subscription& subscription);
    static bool is_news(Subscription& subscription);
    std::string next_try(const Subscription& subscription) const;
    void forget(Entry& entry);
    bool look_at(Entry& entry);

    std::string subscribe_text(const Entry& entry, seconds expires, sip::Transport transport,
                               const CoreSide& side) const;
    Task<void> subscribe(CallNumber call, seconds expires);
    Task<Result<sip::OwnedMessage>> ask(const Entry& asked, seconds expires);
    void answered(Entry& entry, const Result<sip::OwnedMessage>& response);
    void accepted(Entry& entry, const sip::Message& response);
    void take_dialog(Subscription& subscription, const sip::Message& response);

    void take_document(Entry& entry, const RegInfo& info);
    void take_state(Entry& entry, const SubscriptionState& state);
    void ended(Entry& entry, const SubscriptionState& state);
    void apply(const Impi& impi, const RegInfo& info);
    void apply_to(Registration& registration, const RegInfo& info);
    void settle(Registration& registration, TimePoint before, std::string_view why);

    asio::any_io_executor executor_;
    const Config& config_;
    Table& table_;
    Expiry& expiry_;
    CoreLink& core_;
    Counters& counters_;
    const Clock& clock_;
    Pace pace_;
    std::uint64_t run_;  ///< second half of our Call-IDs
    std::size_t under_way_ = 0;
    std::map<Impi, Subscription> subscriptions_;  ///< as many as IMPIs in the table
    std::unordered_map<CallNumber, Entry*> by_call_;
    std::set<std::pair<TimePoint, CallNumber>> due_;  ///< one for each that is not under way
};

}  // namespace gmgate::daemon
