#include "sip/transaction/client.h"

#include <algorithm>
#include <cerrno>

#include "sip/message/headers.h"

namespace gmgate::sip {
namespace {

/// Responses that wait for next(). A peer that sends more before the user looks loses some, provisional ones first.
constexpr std::size_t kMaxWaiting = 64;

/// An answer that nobody takes: the core's 401 carries keys, and so does each copy of it.
void discard(Result<OwnedMessage>& outcome) noexcept {
    if (outcome) outcome->wipe();
}
bool is_provisional(const Result<OwnedMessage>& outcome) { return outcome && (*outcome)->status() < 200; }

ClientKey key_in(std::string_view bytes, const KeyPlace& place) {
    return {bytes.substr(place.branch, place.branch_size), bytes.substr(0, place.method_size)};
}

}  // namespace

std::optional<KeyPlace> key_place(const Message& request) {
    const auto via = top_via(request);
    if (!via || via->branch().empty()) return std::nullopt;
    return KeyPlace{static_cast<std::size_t>(via->branch().data() - request.bytes().data()), via->branch().size(),
                    request.method_name().size()};
}

/// Lends the event in next()'s frame to the transaction, also when the frame is destroyed while it waits.
class ClientFlow::Waiting {
public:
    Waiting(ClientFlow& flow, Event& event) : flow_(flow) { flow_.waiting_ = &event; }
    ~Waiting() { flow_.waiting_ = nullptr; }
    Waiting(const Waiting&) = delete;
    Waiting& operator=(const Waiting&) = delete;

private:
    ClientFlow& flow_;
};

ClientFlow::ClientFlow(const std::shared_ptr<TransactionCore>& core, std::string bytes, const KeyPlace& place,
                       const Flow& flow)
    : TransactionTimer(core->timers),
      core_(core),
      bytes_(std::move(bytes)),
      key_(key_in(bytes_, place)),
      flow_(flow),
      door_(core->door_of(flow, Direction::out)),
      timers_(core->timers_for(flow)) {}

void ClientFlow::start(std::chrono::milliseconds patience) {
    if (auto sent = transmit(); !sent) {
        const bool is_ours = sent.error().reaction == Reaction::internal;  // says nothing of the peer
        fail({is_ours ? Reaction::internal : Reaction::broken, sent.error().code, std::move(sent.error().text)});
        return;
    }
    if (is_udp()) {
        interval_ = timers_.t1;
        retransmit_in(interval_);  // Timer A, E
    } else if (const auto core = core_.lock()) {
        core->clients_of[flow_.connection].insert(this);
    }
    end_in(patience.count() > 0 ? std::min(patience, 64 * timers_.t1) : 64 * timers_.t1);  // Timer B, F
}

Result<void> ClientFlow::transmit() {
    const auto core = core_.lock();
    if (!core) return failure(Reaction::broken, "the transaction layer is gone");
    return core->transports.send(flow_, bytes_);
}

// --- the user's side

Task<Result<OwnedMessage>> ClientFlow::next(std::shared_ptr<ClientFlow> self) {
    if (self->outcomes_.empty() && self->state_ != State::terminated) {
        const auto core = self->core_.lock();
        if (!core) co_return failure(Reaction::broken, "the transaction layer is gone");
        Event event(core->executor);
        const Waiting waiting(*self, event);
        co_await event.wait();
    }
    if (self->outcomes_.empty()) co_return failure(Reaction::broken, "the transaction has ended");
    auto outcome = std::move(self->outcomes_.front());
    self->outcomes_.pop_front();
    co_return outcome;
}

void ClientFlow::deliver(Result<OwnedMessage> outcome) {
    if (!has_handle_) return discard(outcome);
    if (outcomes_.size() >= kMaxWaiting) {
        if (is_provisional(outcome)) return discard(outcome);
        const auto least = std::ranges::find_if(outcomes_, is_provisional);
        if (least != outcomes_.end()) outcomes_.erase(least);
        else if (outcome) return discard(outcome);  // one more 2xx of the INVITE's forks
    }
    outcomes_.push_back(std::move(outcome));
    if (waiting_ != nullptr) waiting_->wake();
}

void ClientFlow::cancel(std::string fields) {
    if (!is_invite() || cancel_wanted_ || (state_ != State::calling && state_ != State::proceeding)) return;
    cancel_wanted_ = true;
    cancel_fields_ = std::move(fields);
    if (state_ == State::proceeding) send_cancel();  // §9.1: not before a provisional response has come
}

void ClientFlow::abandon() {
    const auto self = shared_from_this();
    has_handle_ = false;
    std::ranges::for_each(outcomes_, discard);
    outcomes_.clear();
    const bool open = state_ == State::calling || state_ == State::proceeding;
    // A cancelled INVITE is seen through, so that its 487 gets an ACK. In completed the layer goes on by itself (Timer
    // D, K).
    if ((open && !cancel_wanted_) || state_ == State::accepted) terminate();
    if (waiting_ != nullptr) waiting_->wake();
}

void ClientFlow::fail(Error error) {
    const auto self = shared_from_this();
    deliver(std::unexpected(std::move(error)));
    terminate();
}

void ClientFlow::connection_lost() {
    const std::string whose = "the connection to " + flow_.remote.to_string();
    if (state_ == State::calling) fail({Reaction::broken, 0, whose + " was closed before a response came"});
    else if (state_ == State::proceeding)
        deliver(failure(Reaction::broken, whose + " was closed before the final response came", EINPROGRESS));
}

bool is_connection_lost(const Error& error) { return error.reaction == Reaction::broken && error.code == EINPROGRESS; }

bool ClientFlow::may_answer(const Flow& came) const {
    // Whoever registers over a connection meanwhile: what was sent on it may be answered on it.
    if (is_reliable(came.transport) && came.connection == flow_.connection) return true;
    const auto core = core_.lock();
    return core && core->door_of(came, Direction::in) == door_ && core->is_way_of(door_, flow_, came);
}

void ClientFlow::move_to(const Flow& flow) {
    const auto core = core_.lock();
    if (!core || state_ == State::terminated) return;
    leave_connection();
    flow_ = flow;
    door_ = core->door_of(flow, Direction::out);
    if (!is_udp()) core->clients_of[flow_.connection].insert(this);
    if (cancel_sent_) {  // it may have been lost with the connection
        cancel_sent_ = false;
        send_cancel();
    }
}

void ClientFlow::leave_connection() {
    const auto core = core_.lock();
    if (!core) return;
    const auto found = core->clients_of.find(flow_.connection);
    if (found == core->clients_of.end()) return;
    found->second.erase(this);
    if (found->second.empty()) core->clients_of.erase(found);
}

// --- responses

void ClientFlow::receive(OwnedMessage&& response) {
    const auto self = shared_from_this();
    switch (state_) {
        case State::calling:
        case State::proceeding:
            if (response->status() < 200) receive_provisional(std::move(response));
            else receive_final(std::move(response));
            return;
        case State::completed:  // the final response again: acknowledged again, nothing else
            if (const auto core = core_.lock()) {
                ++core->counters.retransmissions_in;
                if (!ack_.empty() && response->status() >= 300) (void)core->transports.send(flow_, ack_);
            }
            return;
        case State::accepted:  // RFC 6026 §7.2: every 2xx is passed up
            if (response->status() >= 200 && response->status() < 300) deliver(std::move(response));
            return;
        case State::terminated:
            return;
    }
}

void ClientFlow::receive_provisional(OwnedMessage response) {
    if (std::exchange(state_, State::proceeding) == State::calling) {
        if (is_invite()) {
            stop_timers();  // Timer A, B: from now on it may ring for long
            if (cancel_wanted_) send_cancel();
        } else if (is_udp()) {
            interval_ = timers_.t2;
            retransmit_in(interval_);
        }
    }
    if (response->status() != 100) deliver(std::move(response));
}

void ClientFlow::receive_final(OwnedMessage response) {
    stop_timers();
    if (is_invite() && response->status() < 300) {
        state_ = State::accepted;
        end_in(64 * timers_.t1);  // Timer M
        deliver(std::move(response));
        return;
    }
    state_ = State::completed;
    if (is_invite()) acknowledge(*response);
    deliver(std::move(response));
    // Timer D, K are 0 over a stream. In a crowd nobody waits for copies of an answer, which as strays go nowhere: what
    // a flood of strangers leaves behind would take the room of registered phones.
    const auto core = core_.lock();
    const bool is_in_the_way = !is_invite() && core && core->is_crowded_with_clients();
    if (!is_udp() || is_in_the_way) terminate();
    else end_in(is_invite() ? 64 * timers_.t1 : timers_.t4);  // Timer D (32 s with the default T1), K
}

std::string ClientFlow::derive(std::string_view method, std::string_view to, std::string_view fields) const {
    const auto request = Message::parse(bytes_);
    return request ? derived_request(*request, method, to.empty() ? request->value(HeaderId::to) : to, fields)
                   : std::string();
}

void ClientFlow::acknowledge(const Message& response) {
    ack_ = derive("ACK", response.value(HeaderId::to), {});
    if (const auto core = core_.lock()) (void)core->transports.send(flow_, ack_);
}

void ClientFlow::send_cancel() {
    const auto core = core_.lock();
    if (!core || std::exchange(cancel_sent_, true)) return;
    std::string bytes = derive("CANCEL", {}, cancel_fields_);
    const auto request = Message::parse(std::string_view(bytes));
    const auto place = request ? key_place(*request) : std::nullopt;
    if (!place) return;
    const auto flow = std::make_shared<ClientFlow>(core, std::move(bytes), *place, flow_);
    flow->detach();
    if (core->clients.emplace(flow->key(), flow).second) flow->start();
    end_in(64 * timers_.t1);  // §9.1: without a final response by then the INVITE counts as cancelled
}

// --- timers and the end

void ClientFlow::on_retransmit() {
    if (const auto core = core_.lock()) ++core->counters.retransmissions_out;
    if (auto sent = transmit(); !sent && sent.error().reaction == Reaction::broken) {
        fail(std::move(sent.error()));
        return;
    }
    // Timer A doubles without bound, Timer E up to T2.
    interval_ = is_invite() ? 2 * interval_ : std::min(2 * interval_, timers_.t2);
    retransmit_in(interval_);
}

void ClientFlow::on_end() {
    if (state_ == State::calling || state_ == State::proceeding) {
        if (const auto core = core_.lock()) ++core->counters.timeouts;
        deliver(failure(Reaction::retry, "timeout", state_ == State::proceeding ? EINPROGRESS : 0));
    }
    terminate();
}

void ClientFlow::terminate() {
    if (std::exchange(state_, State::terminated) == State::terminated) return;
    const auto self = shared_from_this();
    stop_timers();
    ack_.clear();
    if (waiting_ != nullptr) waiting_->wake();
    const auto core = core_.lock();
    if (!core) return;
    leave_connection();
    core->clients.erase(key_);
}

}  // namespace gmgate::sip
