// What client and server transactions share: the tables, the timers, the way out. Internal to the transaction layer.
#pragma once

#include <string>
#include <unordered_map>
#include <unordered_set>

#include "base/random.h"
#include "base/siphash.h"
#include "sip/timer_heap.h"
#include "sip/transactions.h"

namespace gmgate::sip {

class ClientFlow;
class ServerFlow;

/// shared_ptr because transactions in foreign hands refer to it (weakly) after the Transactions are gone.
struct TransactionCore {
    TransactionCore(asio::any_io_executor e, Transports& t, TransactionLimits l, std::function<Timers(const Flow&)> f)
        : executor(std::move(e)), transports(t), limits(l), timers_for(std::move(f)), timers(std::make_shared<TimerHeap>(executor)) {
        random_bytes(tag_key);
    }
    /// To tag of our own responses in the transaction of this key, with and without a place in the table.
    std::string tag_for(std::string_view key) const;
    bool is_crowded() const { return servers.size() > limits.server_transactions / 2; }

    asio::any_io_executor executor;
    Transports& transports;  // outlives the Transactions
    TransactionLimits limits;
    std::function<Timers(const Flow&)> timers_for;
    std::shared_ptr<TimerHeap> timers;
    TransactionCounters counters;
    SipHashKey tag_key{};
    std::unordered_map<std::string, std::shared_ptr<ServerFlow>> servers;
    std::unordered_map<std::string, std::shared_ptr<ClientFlow>> clients;
    std::unordered_map<ConnectionId, std::unordered_set<ClientFlow*>> clients_of;  ///< those that wait on a stream connection
};

/// The two deadlines that a transaction can have at a time: its next retransmission and its end.
class TransactionTimer : public TimerHeap::Node {
public:
    using Node::Node;

protected:
    void retransmit_in(std::chrono::milliseconds delay);
    void end_in(std::chrono::milliseconds delay);
    void stop_retransmission();
    void stop_timers();
    virtual void on_retransmit() = 0;
    virtual void on_end() = 0;
    /// Held while a handler runs that may drop the last reference.
    virtual std::shared_ptr<void> hold() = 0;

private:
    void on_timer() final;
    void rearm();
    TimePoint retransmit_at_ = TimePoint::max(), end_at_ = TimePoint::max();
};

/// Keys of the tables. A transaction is named by its topmost Via: branch, sent-by and method, ACK counting as INVITE (RFC 3261
/// §17.2.3), and by the address it came from, which RFC 3261 leaves out: the far end of a call sees our peer's Via and must not be
/// able to cancel or acknowledge in its name. Without a real branch (RFC 2543; RFC 4475 §3.2.1): by the fields §17.2.3 lists, less the
/// To tag, which ACK and CANCEL need not share. nullopt: no usable Via.
std::optional<std::string> server_key(const Message& request, const Flow& flow, std::string_view method);
/// Branch and CSeq method (§17.1.3). "" for an empty branch.
std::string client_key(std::string_view branch, std::string_view method);

/// Status code of a response's bytes, 0 when they do not begin like one.
int status_of(std::string_view response);

/// A request made from another one that was sent: ACK to a non-2xx final response (§17.1.1.3; `to` from the response) or CANCEL
/// (§9.1). Same Request-URI, topmost Via, From, Call-ID, Route, and CSeq number.
std::string derived_request(const Message& invite, std::string_view method, std::string_view to);

/// How long a client takes until its Timer E has reached T2: T1 + 2·T1 + … (RFC 4320 §4.1).
std::chrono::milliseconds time_until_t2(const Timers& timers);

}  // namespace gmgate::sip
