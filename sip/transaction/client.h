// A request that was sent (RFC 3261 §17.1, RFC 6026 §7.2). Internal to the transaction layer.
#pragma once

#include <deque>

#include "sip/transaction/core.h"

namespace gmgate::sip {

/// The state machine. It is kept by the table and, while the user wants responses, by a ClientHandle; it may outlive
/// the handle to acknowledge late final responses (Timer D), to absorb them (Timer K), or to see a CANCEL through.
class ClientFlow final : public TransactionTimer, public std::enable_shared_from_this<ClientFlow> {
public:
    /// `request` has been parsed by the caller and lives in the transaction from now on.
    ClientFlow(const std::shared_ptr<TransactionCore>& core, const ClientKey& key, OwnedMessage request,
               const Flow& flow);
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
    void receive(OwnedMessage response);
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

    bool is_invite() const { return request_->method() == Method::invite; }
    bool is_udp() const { return !is_reliable(flow_.transport); }
    void receive_provisional(OwnedMessage response);
    void receive_final(OwnedMessage response);
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
    ClientKey key_;  // shows bytes of request_
    OwnedMessage request_;
    Flow flow_;
    Door door_;
    Timers timers_;
    std::deque<Result<OwnedMessage>> outcomes_;
    asio::steady_timer* waiting_ = nullptr;  // lives in the frame of next()
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
