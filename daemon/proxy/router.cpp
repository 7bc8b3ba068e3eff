// What all directions share: entry points, local answers and the loop that passes responses back.
#include "daemon/proxy/router.h"

#include <exception>
#include <utility>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/steady_timer.hpp>
#include <asio/this_coro.hpp>

#include "base/log.h"
#include "daemon/proxy/own_names.h"
#include "sip/headers.h"

namespace gmgate::daemon {

namespace {
constexpr std::chrono::seconds kTimerC{185};  // RFC 3261 §16.6 step 11: more than three minutes
}

Router::Router(asio::any_io_executor executor, const Config& config, Table& table, CoreLink& core, sip::Transports& transports,
               sip::Transactions& transactions, Counters& counters)
    : executor_(std::move(executor)),
      config_(config),
      table_(table),
      core_(core),
      transports_(transports),
      transactions_(transactions),
      counters_(counters),
      connector_(transports),
      own_hosts_(own_hosts(config)),
      emergency_(clock_) {}

Task<void> Router::from_ue(std::shared_ptr<sip::ServerTransaction> transaction) {
    return guarded(handle_from_ue(std::move(transaction)), "from-ue");
}

Task<void> Router::from_core(std::shared_ptr<sip::ServerTransaction> transaction) {
    return guarded(handle_from_core(std::move(transaction)), "from-core");
}

Task<void> Router::emergency(std::shared_ptr<sip::ServerTransaction> transaction) {
    return guarded(handle_emergency(std::move(transaction)), "emergency");
}

void Router::stray(sip::OwnedMessage message, sip::Flow flow) {
    asio::co_spawn(executor_, guarded(handle_stray(std::move(message), flow), "stray"), asio::detached);
}

// No exception leaves the proxy: what the standard library throws (out of memory) ends one request, not the process.
Task<void> Router::guarded(Task<void> work, const char* what) {
    try {
        co_await std::move(work);
    } catch (const std::exception& e) {
        log::error("proxy-failed", {{"in", what}, {"reason", e.what()}});
    }
}

void Router::CancelWatch::cancel() {
    is_cancelled = true;
    if (client != nullptr) client->cancel();
}

std::shared_ptr<Router::CancelWatch> Router::watch_cancel(sip::ServerTransaction& transaction) {
    auto watch = std::make_shared<CancelWatch>();
    if (transaction.request().method() == sip::Method::invite) transaction.on_cancel([watch] { watch->cancel(); });
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
    std::string response = sip::make_response(request, answer.status, answer.phrase, transaction->tag(), answer.extra);
    if (aim && !co_await aim()) co_return;
    if (const auto sent = transaction->respond(std::move(response)); !sent)
        log::info("proxy-answer-not-sent", {{"peer", transaction->reply_flow().remote.to_string()}, {"reason", sent.error().text}});
}

Task<void> Router::answer(std::shared_ptr<sip::ServerTransaction> transaction, Answer refusal) {
    const Aim as_it_came;
    co_await answer(std::move(transaction), std::move(refusal), as_it_came);
}

Task<void> Router::refuse_stranger(std::shared_ptr<sip::ServerTransaction> transaction, Answer refusal) {
    co_await answer(transaction, std::move(refusal));
    transaction->forget();
}

Answer Router::no_answer(const Error& error, bool towards_core, bool is_cancelled) {
    Answer answer;
    answer.why = error.text;
    if (error.reaction == Reaction::exhausted) {  // our own table is full
        answer.status = 503;
        answer.phrase = "Service Unavailable";
        answer.extra.emplace_back("Retry-After: 10");
    } else if (is_cancelled) {  // RFC 3261 §16.10: timer C, or a CANCEL that the other side never answered
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

std::function<Task<std::unique_ptr<sip::ClientTransaction>>(const Result<sip::OwnedMessage>&)> Router::next_target(std::shared_ptr<CoreAttempts> attempts) {
    return [attempts](const Result<sip::OwnedMessage>& outcome) -> Task<std::unique_ptr<sip::ClientTransaction>> {
        if (!attempts->should_try_again(outcome)) co_return nullptr;
        auto another = co_await attempts->next();
        co_return another ? std::move(*another) : nullptr;
    };
}

Task<void> Router::relay(Relay leg) {
    const bool is_invite = leg.transaction->request().method() == sip::Method::invite;
    leg.watch->client = leg.client.get();
    if (leg.watch->is_cancelled) leg.client->cancel();  // it came while we were opening the way

    // Timer C: a callee that rings for ever is cancelled; each provisional response starts it anew.
    asio::steady_timer timer_c(co_await asio::this_coro::executor);
    const auto start_timer_c = [&timer_c, watch = leg.watch] {
        timer_c.expires_after(kTimerC);
        timer_c.async_wait([watch](const std::error_code& error) {
            if (!error) watch->cancel();
        });
    };
    if (is_invite) start_timer_c();

    bool is_answered = false;
    bool is_first = true;  // outcome of this try
    for (;;) {
        const Result<sip::OwnedMessage> response = co_await leg.client->next();
        if (leg.again && !leg.watch->is_cancelled && std::exchange(is_first, false)) {
            leg.watch->client = nullptr;
            auto another = co_await leg.again(response);
            if (another != nullptr) {
                leg.client = std::move(another);
                leg.watch->client = leg.client.get();
                if (leg.watch->is_cancelled) leg.client->cancel();
                is_first = true;
                if (is_invite) start_timer_c();
                continue;
            }
            leg.watch->client = leg.client.get();
            if (leg.watch->is_cancelled) leg.client->cancel();
        }
        if (!response) {
            if (!is_answered) {
                Answer refusal = no_answer(response.error(), leg.towards_core, leg.watch->is_cancelled);
                co_await answer(leg.transaction, std::move(refusal), leg.aim);
            }
            break;
        }
        const int status = (*response)->status();
        if (status == 100) continue;
        std::string text = leg.edit(**response);
        const bool can_reply = !leg.aim || co_await leg.aim();
        if (can_reply) {
            if (const auto sent = leg.transaction->respond(std::move(text)); !sent)
                log::info("proxy-response-not-sent", {{"status", status},
                                                      {"peer", leg.transaction->reply_flow().remote.to_string()},
                                                      {"reason", sent.error().text}});
        }
        if (status < 200) {
            if (is_invite && !is_answered) start_timer_c();
            continue;
        }
        is_answered = true;
        timer_c.cancel();
        if (!is_invite || status >= 300) break;  // after a 2xx to INVITE its retransmissions and those of other forks may follow
    }
    leg.watch->client = nullptr;
}

}  // namespace gmgate::daemon
