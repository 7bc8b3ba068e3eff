// Client and server transactions (RFC 3261 §17, RFC 6026), with IMS timers towards the UE (TS 24.229 table 7.7.1).
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "base/task.h"
#include "sip/transport/door.h"
#include "sip/transport/transport.h"

namespace gmgate::sip {

struct Timers {
    std::chrono::milliseconds t1{500}, t2{4000}, t4{5000};
    friend bool operator==(const Timers&, const Timers&) = default;
};
/// RFC 3261 values, used towards the core.
inline constexpr Timers kCoreTimers{};
/// C-5: T1 2 s, T2 16 s, T4 17 s towards the UE; 64·T1 = 128 s.
inline constexpr Timers kUeTimers{std::chrono::milliseconds{2000}, std::chrono::milliseconds{16000},
                                  std::chrono::milliseconds{17000}};

/// A request that arrived. The handler holds it by shared_ptr (the transaction layer and the handler share it until
/// both are done: retransmissions must be answered after the handler has finished).
class ServerTransaction {
public:
    virtual ~ServerTransaction() = default;
    virtual const Message& request() const = 0;
    virtual const Flow& flow() const = 0;
    /// Where responses go; default: for UDP the source address (RFC 3581), for streams the connection. The register
    /// flow and everything on SAs sets it to port_pc → port_us (B-15).
    virtual void set_reply_flow(const Flow& flow) = 0;
    virtual const Flow& reply_flow() const = 0;
    /// Sends a response (whole message with the request's Vias) and keeps the last one for retransmissions. A response
    /// after a final one is ignored, except 2xx to INVITE.
    virtual Result<void> respond(std::string response) = 0;
    virtual bool is_completed() const = 0;  ///< a final response has been given
    /// To tag for responses of our own: the same for every copy of the request, and nobody else can know it beforehand
    /// (RFC 3261 §8.2.7).
    virtual std::string tag() const = 0;
    /// After the final response: keeps nothing of it, not even the last response for retransmissions. A copy of the
    /// request comes to the handler as a new one, and an ACK to a response with tag() is absorbed. For answers to
    /// strangers, who could fill the table otherwise.
    virtual void forget() = 0;
    /// The same, but only while more than half of the table is in use.
    virtual void forget_when_crowded() = 0;
    /// Called when a CANCEL for this INVITE arrives (the layer has answered the CANCEL with 200 itself), with the
    /// header fields of it that the next CANCEL keeps, such as its Reason; see ClientTransaction::cancel().
    virtual void on_cancel(std::function<void(std::string fields)> handler) = 0;
};

/// A request that was sent. Destroying the handle forgets the transaction (late responses become stray).
class ClientTransaction {
public:
    virtual ~ClientTransaction() = default;
    /// The next response: provisional ones (except 100) in order, then the final one; for INVITE further 2xx of forks
    /// may follow the first. Errors: Reaction::retry with "timeout" (timer B/F; code EINPROGRESS when a provisional
    /// response had come, 100 included: the peer lives), Reaction::broken for a transport failure. After an error or a
    /// final response of a non-INVITE transaction it must not be called again; one exception: is_connection_lost(). ACK
    /// to a non-2xx final is sent by the layer.
    virtual Task<Result<OwnedMessage>> next() = 0;
    /// Sends CANCEL when a provisional response has come (or as soon as one comes). INVITE only. `fields`: header
    /// fields that it gets besides those of the INVITE, whole, each with its line end ("Reason: …\r\n", RFC 3326).
    virtual void cancel(std::string fields = {}) = 0;
    /// What still belongs to the transaction (CANCEL, ACK) goes this way: the connection of the request has ended.
    virtual void move_to(const Flow& flow) = 0;
    /// Ends it: next() gives `error`, after what has come already.
    virtual void end(Error error) = 0;
};

/// What next() tells when the connection of the request has ended after a provisional response: the final one may come
/// on another connection (RFC 3261 §18.2.2), so the transaction goes on and next() may be called again.
bool is_connection_lost(const Error& error);

struct TransactionLimits {
    std::size_t server_transactions = 65536;
    std::size_t client_transactions = 65536;
    std::size_t urgent_reserve = 0;  ///< how many of each only urgent requests may take (set_urgent)
    /// How many server transactions all those may have together whom nobody knows (Door::owner 0); what is left is for
    /// the others. 0: no limit of their own.
    std::size_t strangers = 0;
    /// How many requests of one such source, an IPv4 address or an IPv6 /64, may wait for their answer. 0: no limit.
    std::size_t waiting_per_source = 0;
};

/// How a request of ours is sent.
struct SendOptions {
    bool is_urgent = false;  ///< may take the reserve of the table
    std::chrono::milliseconds patience{
        0};  ///< "timeout" after this instead of Timer B or F, when nothing has come by then; 0: the timers'
};

struct TransactionCounters {
    std::uint64_t retransmissions_in = 0, retransmissions_out = 0, stray_responses = 0, refused_limit = 0, shed = 0,
                  timeouts = 0;
    std::uint64_t responses_wrong_door = 0;  ///< to a request of ours, but not from where that was sent to: dropped
    std::uint64_t cancels_unmatched = 0;     ///< answered 481
};

/// Matches messages to transactions. `timers_for(flow)` tells which timers hold on a leg.
class Transactions {
public:
    using RequestHandler = std::function<void(std::shared_ptr<ServerTransaction>)>;
    using StrayHandler = std::function<void(OwnedMessage, Flow)>;

    /// Takes over transports.on_message(); `transports` must live longer.
    Transactions(asio::any_io_executor executor, Transports& transports, TransactionLimits limits,
                 std::function<Timers(const Flow&)> timers_for);
    ~Transactions();

    /// A new request other than ACK and CANCEL. At a limit new requests get 503 with Retry-After.
    void on_request(RequestHandler handler);
    /// ACKs to 2xx, and responses that match nothing (2xx retransmissions of a forgotten INVITE). What has the branch
    /// of a transaction, but came through another door, is none of them: it is dropped (responses), or is that of an
    /// unknown transaction (ACK, CANCEL).
    void on_stray(StrayHandler handler);
    /// Looks at every message before it is matched; false = drop it (wrong SA, C-45). Called on each retransmission,
    /// too.
    void set_screen(std::function<bool(const Message&, const Flow&)> screen);

    /// Has the last word on each response that leaves, and on the way that it takes. Default: none.
    void set_finish(std::function<std::string(std::string response, const Flow& way)> finish);
    /// Tells the door of a flow; default: door_of_ends(). To be set before the first message.
    void set_doors(DoorFinder doors);
    /// Told of each response that is dropped because it came through another door than its request left by.
    void on_wrong_door(std::function<void(const Message& response, const Flow& came, const Flow& sent)> handler);

    /// Which requests may take the reserve when the table is nearly full (emergency); asked only then. Default: none.
    void set_urgent(std::function<bool(const Message&, const Flow&)> is_urgent);
    /// Which new requests are refused now with 503 and Retry-After, whatever room there is (overload). Default: none.
    void set_shed(std::function<bool(const Message&, const Flow&)> must_shed);

    /// Sends `request` (its topmost Via must carry a branch of new_branch()) and starts the transaction.
    std::unique_ptr<ClientTransaction> send(std::string request, const Flow& flow, SendOptions options = {});
    /// Sends bytes outside any transaction (ACK to 2xx, forwarded stray responses).
    Result<void> send_stateless(std::string bytes, const Flow& flow);
    /// A fresh branch with the magic cookie, unpredictable.
    static std::string new_branch();

    std::size_t server_count() const;
    std::size_t client_count() const;
    const TransactionCounters& counters() const;

private:
    struct Impl;
    std::shared_ptr<Impl> impl_;  // shared with timers in flight
};

}  // namespace gmgate::sip
