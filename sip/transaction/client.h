// A request that was sent (RFC 3261 §17.1, RFC 6026 §7.2). Internal to the transaction layer.
#pragma once

#include <list>
#include <optional>
#include <string>

#include "base/event.h"
#include "sip/transaction/core.h"

namespace gmgate::sip {

/// Where a request's bytes show its ClientKey; the method stands at their beginning.
struct KeyPlace {
    std::size_t branch = 0, branch_size = 0, method_size = 0;
};
/// Of a request's bytes(). nullopt: it has no Via with a branch.
std::optional<KeyPlace> key_place(const Message& request);

/// The state machine. It is kept by the table and, while the user wants responses, by a ClientHandle; it may outlive
/// the handle to acknowledge late final responses (Timer D), to absorb them (Timer K), or to see a CANCEL through.
class ClientFlow final : public TransactionTimer, public std::enable_shared_from_this<ClientFlow> {
public:
    /// `bytes` are those of a request that the caller has parsed, and live in the transaction from now on. Their parsed
    /// form does not: it is twice their size, and few transactions need it again.
    ClientFlow(const std::shared_ptr<TransactionCore>& core, std::string bytes, const KeyPlace& place,
               const Flow& flow);
    /// Views of the request.
    const ClientKey& key() const { return key_; }
    /// Sends the request and arms the timers; on failure next() reports it.
    /// `patience` replaces Timer B or F when it is shorter; 0: it does not.
    void start(std::chrono::milliseconds patience = {});

    static Task<Result<OwnedMessage>> next(std::shared_ptr<ClientFlow> self);
    void cancel(std::string fields);
    /// Whether a response that came on that flow comes from where the request went to.
    bool may_answer(const Flow& came) const;
    const Flow& flow() const { return flow_; }
    /// The handle is gone.
    void abandon();
    /// Takes it, or leaves it as it is: a copy, or one that comes too late.
    void receive(OwnedMessage&& response);
    /// The connection it was sent on has ended: without any response so far there will be none; after one the user is
    /// told.
    void connection_lost();
    void move_to(const Flow& flow);
    /// Ends it and lets a waiting next() return `error`.
    void fail(Error error);
    void terminate();
    /// Nobody will call next(): a CANCEL of the layer's own.
    void detach() { has_handle_ = false; }

private:
    class Waiting;
    /// calling also stands for "trying" of a non-INVITE request.
    enum class State { calling, proceeding, completed, accepted, terminated };

    bool is_invite() const { return key_.method == "INVITE"; }
    bool is_udp() const { return !is_reliable(flow_.transport); }
    void receive_provisional(OwnedMessage response);
    void receive_final(OwnedMessage response);
    /// A request of the layer's own that belongs to this INVITE.
    std::string derive(std::string_view method, std::string_view to, std::string_view fields) const;
    void acknowledge(const Message& response);
    void send_cancel();
    /// Hands it to next(). When too many wait, provisional responses give way; a final one or an error is never lost
    /// behind them.
    void deliver(Result<OwnedMessage> outcome);
    void leave_connection();
    Result<void> transmit();
    void on_retransmit() override;
    void on_end() override;
    std::shared_ptr<void> hold() override { return shared_from_this(); }

    std::weak_ptr<TransactionCore> core_;
    const std::string bytes_;  // of the request
    ClientKey key_;            // shows bytes_
    Flow flow_;
    Door door_;
    Timers timers_;
    std::list<Result<OwnedMessage>> outcomes_;  // mostly empty, and large elements: no room is kept for them
    Event* waiting_ = nullptr;                  // lives in the frame of next()
    std::chrono::milliseconds interval_{};
    std::string ack_;  // to a non-2xx response, for its retransmissions
    State state_ = State::calling;
    bool has_handle_ = true;
    std::string cancel_fields_;  // what the CANCEL gets of its own
    bool cancel_wanted_ = false, cancel_sent_ = false;
};

/// What the user holds.
class ClientHandle final : public ClientTransaction {
public:
    explicit ClientHandle(std::shared_ptr<ClientFlow> flow) : flow_(std::move(flow)) {}
    ~ClientHandle() override { flow_->abandon(); }
    Task<Result<OwnedMessage>> next() override { return ClientFlow::next(flow_); }
    void cancel(std::string fields) override { flow_->cancel(std::move(fields)); }
    void move_to(const Flow& flow) override { flow_->move_to(flow); }
    void end(Error error) override { flow_->fail(std::move(error)); }

private:
    std::shared_ptr<ClientFlow> flow_;
};

/// A request that could not be sent: next() gives the reason.
class FailedClient final : public ClientTransaction {
public:
    explicit FailedClient(Error error) : error_(std::move(error)) {}
    Task<Result<OwnedMessage>> next() override { return report(error_); }
    void cancel(std::string) override {}
    void move_to(const Flow&) override {}
    void end(Error error) override { error_ = std::move(error); }

private:
    static Task<Result<OwnedMessage>> report(Error error) { co_return std::unexpected(std::move(error)); }
    Error error_;
};

}  // namespace gmgate::sip
