// What all directions share: entry points, local answers and the loop that passes responses back.
#include "daemon/proxy/router.h"

#include <exception>
#include <utility>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/steady_timer.hpp>
#include <asio/this_coro.hpp>

#include "base/log.h"
#include "base/spawn.h"
#include "daemon/rules/header_rules.h"
#include "daemon/rules/own_names.h"
#include "daemon/rules/restoration.h"
#include "sip/message/headers.h"

namespace gmgate::daemon {

Router::Router(asio::any_io_executor executor, const Config& config, Table& table, CoreLink& core,
               sip::Transports& transports, sip::Transactions& transactions, Counters& counters)
    : executor_(std::move(executor)),
      config_(config),
      table_(table),
      core_(core),
      transports_(transports),
      transactions_(transactions),
      counters_(counters),
      connector_(transports),
      own_hosts_(own_hosts(config)),
      emergency_(clock_, {config.limits.emergency_calls, config.limits.emergency_calls_per_source}),
      open_requests_(executor_, table) {}

Task<void> Router::from_ue(std::shared_ptr<sip::ServerTransaction> transaction) {
    auto work = handle_from_ue(transaction);
    return guarded(std::move(work), std::move(transaction), "from-ue");
}

Task<void> Router::from_core(std::shared_ptr<sip::ServerTransaction> transaction) {
    auto work = handle_from_core(transaction);
    return guarded(std::move(work), std::move(transaction), "from-core");
}

Task<void> Router::emergency(std::shared_ptr<sip::ServerTransaction> transaction) {
    auto work = handle_emergency(transaction);
    return guarded(std::move(work), std::move(transaction), "emergency");
}

void Router::stray(sip::OwnedMessage message, sip::Flow flow) {
    asio::co_spawn(executor_, guarded(handle_stray(std::move(message), flow), nullptr, "stray"), asio::detached);
}

// No exception leaves the proxy: what the standard library throws (out of memory) ends one request, not the process.
Task<void> Router::guarded(Task<void> work, std::shared_ptr<sip::ServerTransaction> transaction, const char* what) {
    try {
        co_await std::move(work);
    } catch (const std::exception& e) {
        const char* reason = e.what();
        gmgate::guarded(what, [&] {
            log::error("proxy-failed", {{"in", what}, {"reason", reason}});
            if (!transaction || transaction->is_completed()) return;
            static_cast<void>(transaction->respond(
                sip::make_response(transaction->request(), 500, "Server Internal Error", transaction->tag())));
        });
    }
}

std::shared_ptr<RequestWatch> Router::watch_cancel(sip::ServerTransaction& transaction, Sender sender) {
    auto watch = std::make_shared<RequestWatch>();
    if (transaction.request().method() == sip::Method::invite)
        transaction.on_cancel([watch, sender](std::string fields) {
            watch->cancel(sender == Sender::phone ? without_untrusted(fields) : std::move(fields));
        });
    return watch;
}

Task<void> Router::answer(std::shared_ptr<sip::ServerTransaction> transaction, Answer answer, Aim aim) {
    const sip::Message& request = transaction->request();
    if (const auto counter = answer.status_counter()) counters_.add(*counter);
    if (answer.counter) counters_.add(*answer.counter);
    log::info("proxy-answer", {{"status", answer.status},
                               {"method", request.method_name()},
                               {"call-id", request.value(sip::HeaderId::call_id)},
                               {"peer", transaction->flow().remote.to_string()},
                               {"why", answer.why}});
    if (answer.status / 100 == 4 && !answer.why.empty()) answer.extra.push_back(sip::warning_line(answer.why));
    std::string response = sip::make_response(request, answer.status, answer.phrase, transaction->tag(), answer.extra);
    if (!answer.body.empty()) response = sip::with_body(std::move(response), answer.content_type, answer.body);
    if (aim && !co_await aim()) co_return;
    if (const auto sent = transaction->respond(std::move(response)); !sent)
        log::info("proxy-answer-not-sent",
                  {{"peer", transaction->reply_flow().remote.to_string()}, {"reason", sent.error().text}});
}

Task<void> Router::answer(std::shared_ptr<sip::ServerTransaction> transaction, Answer refusal) {
    const Aim as_it_came;
    co_await answer(std::move(transaction), std::move(refusal), as_it_came);
}

Task<void> Router::refuse_stranger(std::shared_ptr<sip::ServerTransaction> transaction, Answer refusal) {
    co_await answer(transaction, std::move(refusal));
    transaction->forget();
}

Answer Router::no_answer(const Error& error, bool towards_core, const RequestWatch& watch) {
    if (watch.instead()) return *watch.instead();
    Answer answer;
    answer.why = error.text;
    if (error.reaction == Reaction::exhausted) {  // our own table is full
        answer.status = 503;
        answer.phrase = "Service Unavailable";
        answer.extra.emplace_back("Retry-After: 10");
    } else if (watch.is_cancelled()) {  // RFC 3261 §16.10: a CANCEL that the other side never answered
        answer.status = 487;
        answer.phrase = "Request Terminated";
    } else if (towards_core) {  // C-66
        answer.status = 504;
        answer.phrase = "Server Time-out";
        answer.counter = Counter::core_unreachable;
    } else if (error.reaction != Reaction::retry) {  // the phone's connection broke
        answer.status = 480;
        answer.phrase = "Temporarily Unavailable";
    } else {  // to a non-INVITE the transaction layer gives none (RFC 4320 §4.2)
        answer.status = 408;
        answer.phrase = "Request Timeout";
    }
    return answer;
}

std::function<Task<std::unique_ptr<sip::ClientTransaction>>(const Result<sip::OwnedMessage>&)> Router::next_target(
    std::shared_ptr<CoreAttempts> attempts) {
    return [attempts](const Result<sip::OwnedMessage>& outcome) -> Task<std::unique_ptr<sip::ClientTransaction>> {
        if (!attempts->should_try_again(outcome)) co_return nullptr;
        auto another = co_await attempts->next();
        co_return another ? std::move(*another) : nullptr;
    };
}

Task<Router::Outcome> Router::judge(Relay& leg, const Result<sip::OwnedMessage>& outcome, bool& is_first_outcome) {
    const bool is_lost = !outcome && sip::is_connection_lost(outcome.error());
    if (is_lost && leg.other_way) {
        const auto way = co_await leg.other_way();
        if (way) {
            leg.client->move_to(*way);
            co_return Outcome::moved;
        }
    }
    if (!leg.again || leg.watch->is_cancelled() || !std::exchange(is_first_outcome, false)) co_return Outcome::stands;
    leg.watch->attach(nullptr);
    auto another = co_await leg.again(outcome);
    is_first_outcome = another != nullptr;
    if (another != nullptr) leg.client = std::move(another);
    leg.watch->attach(leg.client.get());
    co_return is_first_outcome ? Outcome::another_try : Outcome::stands;
}

Task<void> Router::answer_for_silence(Relay& leg, const Error& error) {
    Answer refusal = no_answer(error, leg.towards_core, *leg.watch);
    if (refusal.status == 504 && !leg.restoration.empty()) ask_for_restoration(refusal, leg.restoration);
    co_await answer(leg.transaction, std::move(refusal), leg.aim);
}

Task<void> Router::pass_back(Relay& leg, const sip::Message& response) {
    std::string text = leg.edit(response);
    const int status = response.status();
    const bool can_reply = !leg.aim || co_await leg.aim();
    if (!can_reply) co_return;
    if (const auto sent = leg.transaction->respond(std::move(text)); !sent)
        log::info("proxy-response-not-sent", {{"status", status},
                                              {"peer", leg.transaction->reply_flow().remote.to_string()},
                                              {"reason", sent.error().text}});
}

Task<void> Router::relay(Relay leg) {
    const bool is_invite = leg.transaction->request().method() == sip::Method::invite;
    // Also when something throws: whoever cancels later must not reach a client that has gone with this frame.
    struct Detach {
        RequestWatch* watch;
        ~Detach() { watch->attach(nullptr); }
    } const detach{leg.watch.get()};
    leg.watch->attach(leg.client.get());

    // Timer C (RFC 3261 §16.6 step 11, §16.8): a callee that rings for ever is cancelled; each provisional response
    // starts it anew.
    asio::steady_timer timer_c(co_await asio::this_coro::executor);
    const auto start_timer_c = [&timer_c, watch = leg.watch, ringing = config_.timers.ringing] {
        timer_c.expires_after(ringing);
        timer_c.async_wait([watch](const std::error_code& error) {
            if (!error) watch->give_up(make_answer(408, "Request Timeout", "it rang for too long (Timer C)"));
        });
    };
    if (is_invite) start_timer_c();

    bool is_answered = false;
    bool is_first_outcome = true;  // of this try
    for (;;) {
        const Result<sip::OwnedMessage> response = co_await leg.client->next();
        const Outcome outcome = co_await judge(leg, response, is_first_outcome);
        if (outcome == Outcome::another_try && is_invite) start_timer_c();
        if (outcome != Outcome::stands) continue;
        if (!response) {
            if (!is_answered) co_await answer_for_silence(leg, response.error());
            break;
        }
        const int status = (*response)->status();
        if (status == 100) continue;
        if (status == 487 && leg.watch->instead()) {  // it was we who cancelled
            Answer refusal = *leg.watch->instead();
            co_await answer(leg.transaction, std::move(refusal), leg.aim);
            break;
        }
        co_await pass_back(leg, **response);
        if (status < 200) {
            if (is_invite && !is_answered) start_timer_c();
            continue;
        }
        is_answered = true;
        timer_c.cancel();
        if (!is_invite || status >= 300)
            break;  // after a 2xx to INVITE its retransmissions and those of other forks may follow
    }
}

}  // namespace gmgate::daemon
