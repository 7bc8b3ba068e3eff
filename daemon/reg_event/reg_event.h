// The reg event package towards the S-CSCF (TS 24.229 §5.2.3, RFC 3680): the gateway learns that the network has ended
// or shortened a registration, and ends its SAs or TLS binding. On with [core] reg-event = true.
#pragma once

#include <map>
#include <memory>
#include <queue>
#include <string>
#include <unordered_map>
#include <vector>

#include <asio/any_io_executor.hpp>

#include "base/clock.h"
#include "base/task.h"
#include "daemon/config/config.h"
#include "daemon/core/core_link.h"
#include "daemon/observe/counters.h"
#include "daemon/reg_event/reginfo.h"
#include "daemon/registrations/expiry.h"
#include "daemon/registrations/table.h"
#include "sip/transaction/transactions.h"

namespace gmgate::daemon {

/// What a NOTIFY means for one contact of ours.
struct ContactNews {
    bool is_terminated = false;
    std::optional<seconds> expires;  ///< of an active contact
};
/// C-52: what the document says of the contact with this URI and instance ("" when it has none); nullopt: nothing. It
/// is terminated when no registration of the document holds it active and at least one says that it has ended.
std::optional<ContactNews> news_of(const RegInfo& info, std::string_view contact_uri, std::string_view instance);
/// C-51: 600 s before the end, half-way when there are no 1200 s.
seconds refresh_after(seconds granted);

/// One subscription for each IMPI with a registration. One loop, one thread.
class RegEvents {
public:
    RegEvents(asio::any_io_executor executor, const Config& config, Table& table, Expiry& expiry, CoreLink& core,
              Counters& counters, const Clock& clock);

    /// A REGISTER of this contact was accepted: subscribes when it is the user's first (C-51). Emergency contacts are
    /// none of it.
    void registered(const Registration& registration);
    /// True for a request of one of our subscriptions' dialogs.
    bool is_ours(const sip::Message& request) const;
    /// A NOTIFY of ours (C-52).
    Task<void> notify(std::shared_ptr<sip::ServerTransaction> transaction);
    /// Once a second what is due: refreshes, and the end of subscriptions whose user has left. Runs until the executor
    /// stops.
    Task<void> run();
    /// One pass over what is due now.
    void sweep();

    std::size_t size() const { return subscriptions_.size(); }

private:
    struct Subscription {
        Impi impi;
        std::string impu;  ///< default public identity
        std::string call_id, our_tag, their_tag, target;
        std::vector<std::string> route;  ///< route set of the dialog, as Route has it
        std::uint32_t cseq = 0;
        std::optional<std::uint32_t> version;  ///< of the last document
        TimePoint due{};                       ///< to be looked at
        TimePoint refresh_at{};                ///< and asked again
        bool under_way = false;                ///< a SUBSCRIBE waits for its answer
        unsigned failures = 0;
    };
    struct Due {
        TimePoint when;
        std::string call_id;
        bool operator>(const Due& other) const { return when > other.when; }
    };
    Subscription* find(const std::string& call_id);
    void start(const Impi& impi, const std::string& impu);
    void schedule(Subscription& subscription, seconds after);
    void look_again(Subscription& subscription);
    void forget(const std::string& call_id);
    std::string subscribe_text(const Subscription& subscription, seconds expires, sip::Transport transport) const;
    Task<void> subscribe(std::string call_id, seconds expires);
    void take_dialog(Subscription& subscription, const sip::Message& response);
    void apply(const Subscription& subscription, const RegInfo& info);
    void shorten(Registration& registration, seconds left, std::string_view why);

    asio::any_io_executor executor_;
    const Config& config_;
    Table& table_;
    Expiry& expiry_;
    CoreLink& core_;
    Counters& counters_;
    const Clock& clock_;
    std::unordered_map<std::string, std::unique_ptr<Subscription>>
        subscriptions_;  ///< by Call-ID; as many as IMPIs in the table
    std::map<Impi, std::string> by_impi_;
    std::priority_queue<Due, std::vector<Due>, std::greater<>> due_;
};

}  // namespace gmgate::daemon
