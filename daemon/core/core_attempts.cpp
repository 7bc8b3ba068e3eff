// One request to the core, from target to target: declared in core_link.h.
#include <algorithm>
#include <cerrno>
#include <utility>

#include "daemon/core/core_link.h"

namespace gmgate::daemon {

Task<Result<std::unique_ptr<sip::ClientTransaction>>> CoreAttempts::next() {
    Error last{Reaction::broken, 0, "no element of the core is left to try"};
    while (take_next(last)) {
        const Target target = *current_;
        const CoreSide& side = link_->side_for(target.endpoint.address.family());
        std::string text = build_(to_sip(target.transport), side);
        const CoreTransport transport = transport_for(text.size(), target.transport);
        if (transport != target.transport) text = build_(to_sip(transport), side);
        Result<CoreLink::Way> way = failure(Reaction::broken, {});
        if (is_alone_) way = co_await link_->way_alone(target.endpoint, transport, target.tls_name);
        else way = co_await link_->way_to(target.endpoint, transport, target.tls_name, traffic_);
        if (!way &&
            target.transport == CoreTransport::udp) {  // RFC 3261 §18.1.1: better a fragmented datagram than no request
            text = build_(sip::Transport::udp, side);
            way = co_await link_->way_to(target.endpoint, CoreTransport::udp);
        }
        if (!way) {
            last = way.error();
            if (last.reaction != Reaction::exhausted)
                link_->failed(target, last.text);  // our own limit says nothing of the element
            continue;
        }
        remember(transport, way->is_old, way->flow.connection);
        sip::SendOptions options;
        options.is_urgent = importance_ == Importance::urgent;
        // The last one's silence is waited for to the end; another's only so long that a living one would have sent
        // 100. Not for other methods: they get no 100 early (RFC 4320), and to deliver a MESSAGE twice is worse than
        // late.
        is_invite_ = text.starts_with("INVITE ");
        if (!left_.empty() && is_invite_) options.patience = link_->core_.next_hop_answer;
        text = with_overload_offer(std::move(text));
        co_return link_->transactions_.send(std::move(text), way->flow, options);
    }
    co_return std::unexpected(std::move(last));
}

void CoreAttempts::remember(CoreTransport used, bool is_old, sip::ConnectionId connection) {
    own_connection_ = link_->alone_.contains(connection) ? connection : sip::ConnectionId{};
    used_old_connection_ = is_old;
    used_ = used;
    sent_at_ = link_->clock_.now();
    link_->busy_.sending(current_->endpoint);
}

// The next one that need not be spared; false: there is none, and `last` says why.
bool CoreAttempts::take_next(Error& last) {
    bool is_spared = false;
    while (!left_.empty()) {
        current_ = std::move(left_.front());
        left_.erase(left_.begin());
        if (!must_spare(*current_)) return true;
        last = {Reaction::exhausted, 0, current_->endpoint.to_string() + " is overloaded and has asked for less"};
        is_spared = true;
    }
    if (is_spared) ++link_->held_back_;
    return false;
}

// A dead list must never be worse than none: an element that rests without having asked for it is left out only while
// there is a better one. And two busy elements do not send a request to and fro.
bool CoreAttempts::must_spare(const Target& target) const {
    if (importance_ == Importance::urgent) return false;
    const bool is_resting = link_->busy_.is_resting(target.endpoint);
    if (is_resting && was_refused_) return true;
    if (importance_ != Importance::ordinary) return false;
    const auto is_better = [this](const Target& other) {
        return !link_->busy_.is_resting(other.endpoint) && !link_->health_.is_down(other.endpoint);
    };
    if (is_resting && (link_->busy_.asked_for_rest(target.endpoint) || std::ranges::any_of(left_, is_better)))
        return true;
    return link_->overload_control_.must_hold_back(target.endpoint);
}

bool CoreAttempts::should_try_again(const Result<sip::OwnedMessage>& outcome) {
    if (!current_) return false;
    if (outcome) link_->overload_control_.learn(current_->endpoint, **outcome);
    if (outcome && !is_invite_ && (*outcome)->status() >= 200) link_->took(*current_, sent_at_);
    const bool again = judge(outcome);
    const bool is_over = !outcome || (*outcome)->status() >= 300 || ((*outcome)->status() >= 200 && !is_invite_);
    if (is_over && own_connection_ != sip::ConnectionId{})
        link_->transports_.close(std::exchange(own_connection_, {}), false);
    return again;
}

bool CoreAttempts::judge(const Result<sip::OwnedMessage>& outcome) {
    if (outcome && (*outcome)->status() != 503) {
        link_->answered(*current_);
        return false;
    }
    const bool is_lost = !outcome && sip::is_connection_lost(outcome.error());  // and it takes no other connection
    if (!outcome && outcome.error().code == EINPROGRESS && !is_lost) {  // it has the request, and no final answer
        link_->answered(*current_);
        return false;
    }
    const bool is_closed =
        !is_lost && !outcome && outcome.error().reaction == Reaction::broken && used_ != CoreTransport::udp;
    if (is_closed && traffic_ == Traffic::strangers) return try_alone();
    if (is_closed && used_old_connection_) {  // the element may have started anew
        left_.insert(left_.begin(), *current_);
        return true;
    }
    if (!outcome && outcome.error().reaction != Reaction::broken && outcome.error().reaction != Reaction::retry)
        return false;  // our own limit
    return suspect(outcome);
}

// The connection that strangers share was closed without a word, perhaps because of somebody else's request. Alone it
// tells whose fault it was; a second close is no failure of the element, and no other element is troubled with it.
bool CoreAttempts::try_alone() {
    is_disliked_ = own_connection_ != sip::ConnectionId{};
    if (std::exchange(is_alone_, true)) return false;
    left_.insert(left_.begin(), *current_);
    return true;
}

// What it says of the element's health: nothing that a stranger causes does so by itself, for he may have chosen a
// request that brings no answer, or 503.
bool CoreAttempts::suspect(const Result<sip::OwnedMessage>& outcome) {
    if (outcome) return refused(**outcome);
    const std::string& why = outcome.error().text;
    const bool is_silence = outcome.error().reaction == Reaction::retry;
    const bool is_doubtful =
        is_silence && (!is_invite_ || (traffic_ == Traffic::strangers && link_->pinging_on_.has_value()));
    if (is_doubtful) link_->doubt(*current_, sent_at_, why);
    else if (is_silence) link_->silent(*current_, sent_at_, why);
    else link_->failed(*current_, why);
    return !left_.empty();
}

// 503: another element may take it (RFC 3261 §21.5.4). A stranger's is believed by an OPTIONS only, as above.
bool CoreAttempts::refused(const sip::Message& response) {
    was_refused_ = true;
    if (traffic_ == Traffic::strangers && link_->pinging_on_) {
        if (!link_->health_.is_down(current_->endpoint)) link_->doubt(*current_, sent_at_, "503");
    } else if (link_->busy_.refused(current_->endpoint, retry_after_of(response.value(sip::HeaderId::retry_after)))) {
        link_->log_busy(*current_, "503");
    }
    return !left_.empty();
}

Task<std::optional<sip::Flow>> CoreAttempts::other_way() {
    if (!current_) co_return std::nullopt;
    const Target target = *current_;
    const Result<CoreLink::Way> way = co_await link_->way_to(target.endpoint, used_, target.tls_name, traffic_);
    if (!way) co_return std::nullopt;
    co_return way->flow;
}

}  // namespace gmgate::daemon
