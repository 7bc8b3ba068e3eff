#include "sip/transaction/server.h"

#include <algorithm>

#include "base/spawn.h"
#include "sip/message/edit.h"

namespace gmgate::sip {
namespace {

/// RFC 3261 §17.2.1: 100 unless the core answers within 200 ms.
constexpr std::chrono::milliseconds kTryingDelay{200};

}  // namespace

ServerFlow::ServerFlow(const std::shared_ptr<TransactionCore>& core, const ServerKey& key, OwnedMessage request,
                       const Flow& flow)
    : TransactionTimer(core->timers),
      core_(core),
      method_(request->method()),
      key_(key),
      request_(std::make_unique<OwnedMessage>(std::move(request))),
      flow_(flow),
      reply_flow_(flow),
      timers_(core->timers_for(flow)) {}

void ServerFlow::start() {
    // With a TLS connection a registration ends, and with that its calls: an INVITE holds none open.
    const auto core = core_.lock();
    is_due_ = core && is_reliable(flow_.transport) && !(is_invite() && flow_.transport == Transport::tls);
    if (is_due_) ++core->answers_due[flow_.connection];
    if (core) count_stranger();
    // RFC 4320 §4.1: a non-INVITE request gets 100 once the client's Timer E has reached T2, not before.
    retransmit_in(is_invite() ? kTryingDelay : time_until_t2(timers_));
    end_in(64 * timers_.t1);
}

Result<void> ServerFlow::respond(std::string response) {
    const int status = status_of(response);
    if (status == 0) return failure(Reaction::internal, "a response does not begin with a status line");
    switch (state_) {
        case State::trying:
        case State::proceeding:
            return status < 200 ? respond_provisional(status, std::move(response))
                                : respond_final(status, std::move(response));
        case State::accepted:
        case State::terminated:
            return respond_again(status, std::move(response));
        case State::completed:
        case State::confirmed:
            return {};
    }
    return {};
}

Result<void> ServerFlow::respond_provisional(int status, std::string response) {
    if (!is_invite() && status != 100)
        return {};  // RFC 4320 §4.1: no other provisional response to a non-INVITE request
    state_ = State::proceeding;
    stop_retransmission();  // the automatic 100
    last_ = response;
    return transmit(std::move(response));
}

Result<void> ServerFlow::respond_final(int status, std::string response) {
    if (!is_invite() && status == 408) {  // RFC 4320 §4.2: the client has given up by then
        final_given_ = true;
        terminate();
        return {};
    }
    // A response that cannot be sent changes nothing: the core may set another reply flow and try again.
    if (auto sent = transmit(response); !sent) {
        unsent_ = std::move(response);
        return sent;
    }
    unsent_.clear();
    final_given_ = true;
    count_answered();
    stop_retransmission();
    cancel_handler_ = nullptr;
    if (is_invite() && status < 300) {
        state_ = State::accepted;  // RFC 6026 §7.1: absorbs INVITEs until Timer L; 2xx are the core's to repeat
        last_.clear();
        end_in(64 * timers_.t1);
        return {};
    }
    state_ = State::completed;
    if (is_invite()) {
        last_ = std::move(response);
        if (!is_reliable(reply_flow_.transport)) {
            interval_ = timers_.t1;
            retransmit_in(interval_);  // Timer G
        }
        end_in(64 * timers_.t1);  // Timer H
    } else if (is_reliable(flow_.transport)) {
        terminate();  // Timer J is 0
    } else {
        last_ = std::move(response);
        end_in(64 * timers_.t1);  // Timer J
    }
    return {};
}

void ServerFlow::count_stranger() {
    const auto core = core_.lock();
    if (key_.door.owner != OwnerId{}) return;
    is_stranger_ = is_waiting_ = true;
    ++core->strangers;
    ++core->waiting_of[source_prefix(key_.door.remote)];
}

void ServerFlow::count_answered() {
    const auto core = core_.lock();
    if (std::exchange(is_due_, false) && core) core->answered(flow_.connection);
    if (!std::exchange(is_waiting_, false) || !core) return;
    const auto waiting = core->waiting_of.find(source_prefix(key_.door.remote));
    if (--waiting->second == 0) core->waiting_of.erase(waiting);
}

Result<void> ServerFlow::respond_again(int status, std::string response) {
    const bool success = status >= 200 && status < 300;
    if (is_invite() && success && final_given_)
        return transmit(std::move(response));  // a fork's, or the core's retransmission
    if (!final_given_) return failure(Reaction::refused, "too late: the transaction has ended without a response");
    return {};
}

Result<void> ServerFlow::transmit(std::string response) {
    const auto core = core_.lock();
    if (!core) return failure(Reaction::broken, "the transaction layer is gone");
    return core->transports.send(reply_flow_, core->finished(std::move(response), reply_flow_));
}

std::string ServerFlow::tag() const {
    const auto core = core_.lock();
    return core ? core->tag_for(key_) : std::string("gone");
}

void ServerFlow::forget() {
    if (state_ == State::completed || state_ == State::confirmed) terminate();
}

void ServerFlow::forget_when_crowded() {
    if (const auto core = core_.lock(); core && core->is_crowded()) forget();
}

void ServerFlow::repeat_last() {
    if (last_.empty()) return;
    if (const auto core = core_.lock()) ++core->counters.retransmissions_out;
    (void)transmit(last_);
}

void ServerFlow::receive_retransmission() {
    if (const auto core = core_.lock()) ++core->counters.retransmissions_in;
    if (!unsent_.empty() && (state_ == State::trying || state_ == State::proceeding)) {
        auto response = std::exchange(unsent_, {});
        (void)respond_final(status_of(response), std::move(response));
        return;
    }
    if (state_ == State::proceeding || state_ == State::completed) repeat_last();
}

bool ServerFlow::receive_ack() {
    if (state_ == State::accepted) return false;
    if (state_ != State::completed) return true;  // an ACK to nothing, or once more
    stop_retransmission();
    last_.clear();
    state_ = State::confirmed;
    if (is_reliable(flow_.transport)) terminate();  // Timer I is 0
    else end_in(timers_.t4);                        // Timer I
    return true;
}

void ServerFlow::on_cancel(std::function<void(std::string)> handler) {
    if (final_given_) return;
    cancel_handler_ = std::move(handler);
    if (cancelled_) tell_cancelled();
}

void ServerFlow::receive_cancel(const Message& cancel, const Flow& flow) {
    const auto core = core_.lock();
    if (!core) return;
    // §9.2: the CANCEL is answered at once, whatever becomes of the INVITE, with the To tag that our other responses
    // have. On UDP it goes the INVITE's way back (B-15); on a stream back on its own connection.
    const Flow& way = is_reliable(flow.transport) ? flow : reply_flow_;
    (void)core->transports.send(way, make_response(cancel, 200, "OK", tag()));
    if (std::exchange(cancelled_, true)) {
        ++core->counters.retransmissions_in;
        return;
    }
    if (final_given_) return;
    cancel_fields_ = kept_cancel_fields(cancel);
    tell_cancelled();
}

void ServerFlow::tell_cancelled() {
    if (auto handler = std::exchange(cancel_handler_, nullptr))
        guarded("cancel handler", [&] { handler(std::exchange(cancel_fields_, {})); });
}

void ServerFlow::on_retransmit() {
    if (state_ == State::trying) {
        (void)respond_provisional(100, make_response(**request_, 100, "Trying", ""));
    } else if (state_ == State::completed) {
        repeat_last();
        interval_ = std::min(2 * interval_, timers_.t2);
        retransmit_in(interval_);
    }
}

void ServerFlow::on_end() {
    const auto core = core_.lock();
    const bool unanswered = state_ == State::trying || state_ == State::proceeding;
    if (unanswered && is_invite()) {
        // An INVITE may ring for long. But when the table and on_timer() hold the last references, nobody will ever
        // answer it.
        if (weak_from_this().use_count() > 2) {
            end_in(64 * timers_.t1);
            return;
        }
        if (respond_final(500, make_response(**request_, 500, "Server Internal Error", tag()))) return;
    }
    if (core && (unanswered || (state_ == State::completed && is_invite()))) ++core->counters.timeouts;
    terminate();
}

void ServerFlow::let_go() {
    const bool is_over = state_ == State::completed || state_ == State::confirmed || state_ == State::accepted;
    const auto core = core_.lock();
    if (!is_over || !request_ || !core) return;
    auto node = core->servers.extract(key_);
    if (node.empty()) return;  // the layer is being shut down
    const std::initializer_list<std::string_view*> views{&key_.method,   &key_.branch,  &key_.sent_by, &key_.uri,
                                                         &key_.from_tag, &key_.call_id, &key_.via};
    std::size_t size = 0;
    for (const auto* view : views) size += view->size();
    kept_.reserve(size);  // it must not move while the views are set
    for (auto* view : views) {
        const std::size_t at = kept_.size();
        kept_ += *view;
        *view = std::string_view(kept_).substr(at);
    }
    node.key() = key_;
    core->servers.insert(std::move(node));
    request_.reset();
}

void ServerFlow::terminate() {
    if (std::exchange(state_, State::terminated) == State::terminated) return;
    const auto self = shared_from_this();
    stop_timers();
    last_.clear();
    unsent_.clear();
    cancel_handler_ = nullptr;
    count_answered();
    const auto core = core_.lock();
    if (!core) return;
    if (std::exchange(is_stranger_, false)) --core->strangers;
    core->servers.erase(key_);
}

}  // namespace gmgate::sip
