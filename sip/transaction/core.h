// What client and server transactions share: the tables, the timers, the way out. Internal to the transaction layer.
#pragma once

#include <string>
#include <unordered_map>
#include <unordered_set>

#include "base/random.h"
#include "base/siphash.h"
#include "base/source.h"
#include "sip/transaction/timers.h"
#include "sip/transaction/transactions.h"
#include "sip/transport/door.h"

namespace gmgate::sip {

class ClientFlow;
class ServerFlow;

/// Names a server transaction: its door, and from its topmost Via branch, sent-by and method, ACK counting as INVITE
/// (RFC 3261 §17.2.3). Without a real branch (RFC 2543; RFC 4475 §3.2.1): the fields that §17.2.3 lists, less the To
/// tag, which ACK and CANCEL need not share. Views of the request that it was made from, which must outlive it.
struct ServerKey {
    std::uint64_t hash = 0;  ///< of all the rest; unpredictable without the table's key
    Door door{};
    std::string_view method{};
    std::string_view branch{}, sent_by{};                  ///< RFC 3261; sent-by's host is compared without case
    std::uint32_t number = 0;                              ///< sent-by's port, or the CSeq number
    std::string_view uri{}, from_tag{}, call_id{}, via{};  ///< RFC 2543
    friend bool operator==(const ServerKey& a, const ServerKey& b);
};

/// Branch and CSeq method (RFC 3261 §17.1.3); views of the request that was sent. The door is compared afterwards: to
/// come through another one is worth a count, to be unknown is not.
struct ClientKey {
    std::string_view branch, method;
    friend bool operator==(const ClientKey&, const ClientKey&) = default;
};

struct KeyHash {
    std::size_t operator()(const ServerKey& key) const noexcept { return key.hash; }
    /// Only our own branches get into that table, random ones.
    std::size_t operator()(const ClientKey& key) const noexcept {
        return std::hash<std::string_view>{}(key.branch) * 31 + key.method.size();
    }
};

/// shared_ptr because transactions in foreign hands refer to it (weakly) after the Transactions are gone.
struct TransactionCore {
    TransactionCore(asio::any_io_executor e, Transports& t, TransactionLimits l, std::function<Timers(const Flow&)> f)
        : executor(std::move(e)),
          transports(t),
          limits(l),
          timers_for(std::move(f)),
          timers(std::make_shared<TimerHeap>(executor)) {
        random_bytes(tag_key);
    }
    /// nullopt: no usable Via.
    std::optional<ServerKey> server_key(const Message& request, const Door& door, std::string_view method) const;
    std::optional<ServerKey> server_key(const Message& request, const Flow& flow, std::string_view method) const {
        return server_key(request, door_of(flow, Direction::in), method);
    }
    /// To tag of our own responses in the transaction of this key, with and without a place in the table.
    std::string tag_for(const ServerKey& key) const;
    Door door_of(const Flow& flow, Direction direction) const {
        return doors ? doors(flow, direction) : door_of_ends(flow);
    }
    /// Whether what came on `flow` may belong to a transaction of `of`, behind the same `door`: with nobody known
    /// behind it, a stream's transaction stays on its connection until that has ended.
    bool is_way_of(const Door& door, const Flow& of, const Flow& flow) const;
    /// A request that came over this connection has its final response, or will have none.
    void answered(ConnectionId connection);
    bool is_crowded() const {
        return servers.size() > limits.server_transactions / 2 ||
               (limits.strangers != 0 && strangers > limits.strangers / 2);
    }
    /// More than half of the clients' table is in use: who has his answer makes room at once.
    bool is_crowded_with_clients() const { return clients.size() > limits.client_transactions / 2; }
    /// Where a response of the layer's own goes.
    std::optional<Flow> way_back(const Message& request, const Flow& flow) const;
    /// Whether one more request may come through that door (TransactionLimits::strangers, waiting_per_source). An
    /// urgent one of strangers may take the reserve beyond their part, and as many places of its source again, no more:
    /// the rest is the phones'.
    bool has_room_for_source(const ServerKey& key, bool is_urgent) const;
    std::string finished(std::string response, const Flow& way) const {
        return finish ? finish(std::move(response), way) : response;
    }

    asio::any_io_executor executor;
    Transports& transports;  // outlives the Transactions
    TransactionLimits limits;
    std::function<Timers(const Flow&)> timers_for;
    std::shared_ptr<TimerHeap> timers;
    TransactionCounters counters;
    SipHashKey tag_key{};
    DoorFinder doors;
    std::function<std::string(std::string, const Flow&)> finish;
    std::size_t strangers = 0;                            ///< server transactions of doors without a known owner
    std::unordered_map<Address, std::size_t> waiting_of;  ///< those of them without an answer, by source
    /// The keys are views of the requests in the transactions.
    std::unordered_map<ServerKey, std::shared_ptr<ServerFlow>, KeyHash> servers;
    std::unordered_map<ClientKey, std::shared_ptr<ClientFlow>, KeyHash> clients;
    std::unordered_map<ConnectionId, std::unordered_set<ClientFlow*>>
        clients_of;  ///< those that wait on a stream connection
    std::unordered_map<ConnectionId, std::size_t>
        answers_due;  ///< how many requests that came over a stream connection wait for a final response
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

/// Status code of a response's bytes, 0 when they do not begin like one.
int status_of(std::string_view response);

/// A request made from another one that was sent: ACK to a non-2xx final response (§17.1.1.3; `to` from the response)
/// or CANCEL (§9.1). Same Request-URI, topmost Via, From, Call-ID, Route, CSeq number, and the caller's preferences,
/// which proxies on the way go by (RFC 3841 §5). `fields`: whole header fields to add, each with its line end.
std::string derived_request(const Message& invite, std::string_view method, std::string_view to,
                            std::string_view fields = {});

/// The header fields of a CANCEL that the next one keeps, whole, each with its line end. A CANCEL goes hop by hop
/// (§9.1); what it says to the other end must be carried over: Reason (RFC 3326), Privacy (RFC 3323),
/// Resource-Priority (RFC 4412), User-Agent.
std::string kept_cancel_fields(const Message& cancel);

/// How long a client takes until its Timer E has reached T2: T1 + 2·T1 + … (RFC 4320 §4.1).
std::chrono::milliseconds time_until_t2(const Timers& timers);

}  // namespace gmgate::sip
