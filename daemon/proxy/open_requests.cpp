#include "daemon/proxy/open_requests.h"

#include <map>
#include <set>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <asio/post.hpp>

namespace gmgate::daemon {
namespace {

/// RFC 3326: why we cancel, as the status that stands for it.
std::string reason(int status, std::string_view phrase) {
    return fmt::format("Reason: SIP;cause={};text=\"{}\"\r\n", status, phrase);
}

}  // namespace

void RequestWatch::attach(sip::ClientTransaction* client) {
    client_ = client;
    if (client_ == nullptr) return;
    if (is_cancelled_) client_->cancel(fields_);
    if (is_lost_) client_->end({Reaction::broken, 0, "the other side is gone"});
}

void RequestWatch::cancel(std::string fields) {
    if (!is_cancelled_) fields_ = std::move(fields);
    is_cancelled_ = true;
    if (client_ != nullptr) client_->cancel(fields_);
}

void RequestWatch::sender_gone() { cancel(reason(503, "Service Unavailable")); }  // TS 24.229 §5.2.8.1.1

void RequestWatch::give_up(Answer answer) {
    auto why = reason(answer.status, answer.phrase);
    if (!is_cancelled_) instead_ = std::move(answer);
    cancel(std::move(why));
}

void RequestWatch::drop(Answer answer) {
    auto why = reason(answer.status, answer.phrase);
    if (!is_cancelled_) instead_ = std::move(answer);
    cancel(std::move(why));
    is_lost_ = true;
    if (client_ != nullptr) client_->end({Reaction::broken, 0, "it is not wanted any more"});
}

void RequestWatch::lose(Answer answer) {
    if (!is_cancelled_) instead_ = std::move(answer);
    is_cancelled_ = is_lost_ = true;
    if (client_ != nullptr) client_->end({Reaction::broken, 0, "the other side is gone"});
}

struct OpenRequests::State {
    struct Open {
        ContactKey key;
        std::string token;
        Side side;
        std::shared_ptr<RequestWatch> watch;
    };

    void look();
    void judge(const Open& open) const;

    Table& table;
    std::map<std::uint64_t, Open> open{};
    std::multimap<ContactKey, std::uint64_t> by_key{};
    std::set<ContactKey> changed{};
    std::uint64_t last_id = 0;
};

OpenRequests::OpenRequests(asio::any_io_executor executor, Table& table)
    : state_(std::make_shared<State>(State{.table = table})) {
    // At the end of the turn: a phone that changes its sets or its connection has none for a moment.
    table.on_change([executor, weak = std::weak_ptr(state_)](const ContactKey& key) {
        const auto state = weak.lock();
        if (!state || !state->by_key.contains(key)) return;
        if (state->changed.empty())
            asio::post(executor, [weak] {
                if (const auto held = weak.lock()) held->look();
            });
        state->changed.insert(key);
    });
}

OpenRequests::Entry OpenRequests::add(const Registration& registration, Side side,
                                      std::shared_ptr<RequestWatch> watch) {
    const std::uint64_t id = ++state_->last_id;
    state_->open.emplace(id, State::Open{registration.key, registration.token, side, std::move(watch)});
    state_->by_key.emplace(registration.key, id);
    return {state_, id};
}

OpenRequests::Entry::~Entry() {
    const auto state = state_.lock();
    const auto at = state ? state->open.find(id_) : decltype(state->open.find(id_)){};
    if (!state || at == state->open.end()) return;
    const auto [begin, end] = state->by_key.equal_range(at->second.key);
    for (auto entry = begin; entry != end; ++entry)
        if (entry->second == id_) {
            state->by_key.erase(entry);
            break;
        }
    state->open.erase(at);
}

void OpenRequests::State::look() {
    for (const auto& key : std::exchange(changed, {})) {
        std::vector<std::uint64_t> ids;
        for (auto [at, end] = by_key.equal_range(key); at != end; ++at) ids.push_back(at->second);
        for (const auto id : ids)
            if (const auto at = open.find(id); at != open.end()) judge(at->second);
    }
}

// A call that rings at a phone which has gone must not ring on for the caller, nor one of a caller who has gone for the
// callee (RFC 3261 §16.9; TS 24.229 §5.2.8.1).
void OpenRequests::State::judge(const Open& request) const {
    const auto watch = request.watch;
    const Registration* registration = table.find(request.key);
    const bool is_reachable = registration != nullptr && registration->token == request.token &&
                              (registration->tls || !registration->sets.empty());
    if (is_reachable && !registration->ended) return;
    if (request.side == Side::from_phone) return watch->sender_gone();
    Answer answer = make_answer(480, "Temporarily Unavailable", "the phone's registration has ended", Counter::no_set);
    if (is_reachable) watch->give_up(std::move(answer));  // its SAs live a little longer: it can be told
    else watch->lose(std::move(answer));
}

}  // namespace gmgate::daemon
