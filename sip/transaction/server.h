// A request that arrived (RFC 3261 §17.2, RFC 6026 §7.1, RFC 4320). Internal to the transaction layer.
#pragma once

#include <memory>
#include <string>

#include "sip/transaction/core.h"

namespace gmgate::sip {

/// INVITE: trying → proceeding → completed (non-2xx, until ACK) → confirmed, or accepted (2xx). Others: trying →
/// proceeding → completed. Lives in the table until its last timer; the handler's shared_ptr may outlive that.
class ServerFlow final : public ServerTransaction,
                         public TransactionTimer,
                         public std::enable_shared_from_this<ServerFlow> {
public:
    ServerFlow(const std::shared_ptr<TransactionCore>& core, const ServerKey& key, OwnedMessage request,
               const Flow& flow);
    /// Arms the first timers; called once, from a shared_ptr that is in the table.
    void start();

    const Message& request() const override { return **request_; }
    const Flow& flow() const override { return flow_; }
    void set_reply_flow(const Flow& flow) override { reply_flow_ = flow; }
    const Flow& reply_flow() const override { return reply_flow_; }
    Result<void> respond(std::string response) override;
    bool is_completed() const override { return final_given_; }
    std::string tag() const override;
    void forget() override;
    void forget_when_crowded() override;
    void on_cancel(std::function<void(std::string)> handler) override;

    /// The same request again: repeats the last response, if there is one.
    void receive_retransmission();
    /// False when the ACK is for a 2xx and belongs to the core.
    bool receive_ack();
    /// Answers the CANCEL and tells the handler, once.
    void receive_cancel(const Message& cancel, const Flow& flow);
    /// Nobody holds the request any more. An answered one keeps of it what tells its retransmissions: most of its
    /// memory for the 32 s of Timer J was the request.
    void let_go();
    /// Off the table, timers stopped, last response forgotten.
    void terminate();

private:
    enum class State { trying, proceeding, completed, confirmed, accepted, terminated };

    bool is_invite() const { return method_ == Method::invite; }
    Result<void> respond_provisional(int status, std::string response);
    Result<void> respond_final(int status, std::string response);
    Result<void> respond_again(int status, std::string response);
    Result<void> transmit(std::string response);
    void repeat_last();
    void tell_cancelled();
    void count_answered();
    void count_stranger();
    void on_retransmit() override;
    void on_end() override;
    std::shared_ptr<void> hold() override { return shared_from_this(); }

    std::weak_ptr<TransactionCore> core_;
    const Method method_;
    ServerKey key_;                          // shows bytes of request_, or kept_
    std::unique_ptr<OwnedMessage> request_;  // null after let_go()
    std::string kept_;
    Flow flow_, reply_flow_;
    Timers timers_;
    std::string last_;    // the last response, for retransmissions
    std::string unsent_;  // a final one that could not leave: tried again when the request comes again
    std::function<void(std::string)> cancel_handler_;
    std::string cancel_fields_;  // of the CANCEL, for the next one
    std::chrono::milliseconds interval_{};
    State state_ = State::trying;
    bool final_given_ = false;
    bool cancelled_ = false;
    bool is_due_ = false;                            // counted in answers_due
    bool is_stranger_ = false, is_waiting_ = false;  // counted in strangers and waiting_of
};

}  // namespace gmgate::sip
