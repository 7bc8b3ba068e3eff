// trace: switches the keeping of a user's messages on, tells what was kept, and follows.
#include <algorithm>
#include <deque>

#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>

#include "daemon/operate/operations.h"

namespace gmgate::daemon {
namespace {

constexpr std::size_t kMostFailed = 1000;
constexpr std::size_t kBacklog = 2000;  // messages that a follower may lag behind

nlohmann::json message_json(const TracedMessage& message) {
    const auto microseconds =
        std::chrono::duration_cast<std::chrono::microseconds>(message.time.time_since_epoch()).count();
    return {{"number", message.number},
            {"time", utc_text(message.time)},
            {"microseconds", microseconds},
            {"impi", message.impi.value},
            {"owner", message.owner.value},
            {"outward", message.outward},
            {"core_side", message.core_side},
            {"transport", sip::to_string(message.transport)},
            {"source", message.source.to_string()},
            {"destination", message.destination.to_string()},
            {"protection", message.protection},
            {"bytes", message.bytes}};
}

}  // namespace

// A challenge is no failure, nor is a REGISTER that another one has made good.
nlohmann::json Operations::failed() const {
    auto list = Json::array();
    for (const auto& impi : p_.trace.impis()) {
        const auto records = p_.trace.of(impi);
        if (records.empty() || records.back().answer < 300 || records.back().answer == 401) continue;
        list.push_back(record_json(records.back()));
        if (list.size() >= kMostFailed) break;
    }
    return list;
}

// What the recorder has of registrations and calls that failed, the last first.
nlohmann::json Operations::failed_attempts() const {
    auto list = Json::array();
    for (const auto& failure : p_.recorder.failures(kMostFailed))
        list.push_back({{"time", utc_text(failure.time)},
                        {"method", failure.is_call ? "INVITE" : "REGISTER"},
                        {"answer", failure.status},
                        {"who", failure.who},
                        {"call_id", failure.call_id},
                        {"messages", failure.messages}});
    return list;
}

Result<nlohmann::json> Operations::kept_call(const std::string& call_id) const {
    auto messages = Json::array();
    for (const auto& message : p_.recorder.of_call(call_id)) messages.push_back(message_json(message));
    if (messages.empty())
        return failure(Reaction::reject, "nothing is kept of Call-ID " + call_id +
                                             ": it succeeded, it never came, or newer failures have taken its place; "
                                             "gmctl trace --failed lists what there is");
    return Json{{"call_id", call_id}, {"messages", std::move(messages)}};
}

// What the recorder has from before the trace was switched on, then the trace.
std::deque<TracedMessage> Operations::all_of(const Impi& impi) const {
    std::deque<TracedMessage> all;
    const auto since = p_.messages.since(impi);
    for (auto& message : p_.recorder.of(impi))
        if (!since || message.time < *since) all.push_back(std::move(message));
    for (auto& message : p_.messages.of(impi)) all.push_back(std::move(message));
    return all;
}

// Admin: what users say is in it.
void Operations::add_trace_command() {
    server_.add("trace", {Rights::admin, "keeps and tells the decrypted SIP of one user",
                          [this](const Json& arguments, ControlClient& client) { return trace(arguments, client); }});
}

Task<Result<nlohmann::json>> Operations::trace(const Json& arguments, ControlClient& client) {
    const auto of = text_argument(arguments, "of");
    const auto off = flag_argument(arguments, "off");
    const auto follow = flag_argument(arguments, "follow");
    if (!of) co_return std::unexpected(of.error());
    if (!off) co_return std::unexpected(off.error());
    if (!follow) co_return std::unexpected(follow.error());
    const auto wants_failed = flag_argument(arguments, "failed");
    if (!wants_failed) co_return std::unexpected(wants_failed.error());
    if (*wants_failed) co_return Json{{"failed", failed()}, {"kept", failed_attempts()}};
    const auto call = text_argument(arguments, "call");
    if (!call) co_return std::unexpected(call.error());
    if (!call->empty()) co_return kept_call(*call);
    if (of->empty()) {
        auto users = Json::array();
        for (const auto& user : p_.messages.users()) users.push_back(user.value);
        co_return Json{{"users", std::move(users)}};
    }
    const auto impi = co_await impi_named(*of);
    if (*off) {
        p_.messages.stop(impi);
        co_return Json{{"impi", impi.value}, {"state", "off"}};
    }
    const auto users = p_.messages.users();
    const bool was_on = std::ranges::find(users, impi) != users.end();
    if (!p_.messages.start(impi))
        co_return failure(Reaction::exhausted, "too many users are traced; end one with gmctl trace IMPI --off");
    auto waiting = all_of(impi);
    if (!*follow) {
        auto messages = Json::array();
        for (const auto& message : waiting) messages.push_back(message_json(message));
        co_return Json{
            {"impi", impi.value}, {"state", was_on ? "on" : "switched on now"}, {"messages", std::move(messages)}};
    }
    std::uint64_t dropped = 0;
    asio::steady_timer wake(p_.executor);
    const auto subscription = p_.messages.on_message([&](const TracedMessage& message) {
        if (message.impi != impi) return;
        if (waiting.size() >= kBacklog) ++dropped;
        else waiting.push_back(message);
        wake.cancel();
    });
    while (!client.is_gone()) {
        while (!waiting.empty()) {
            if (!client.send_event(message_json(waiting.front()))) co_return Json{{"dropped", dropped}};
            waiting.pop_front();
        }
        wake.expires_after(std::chrono::seconds{1});
        asio::error_code ignored;
        co_await wake.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
    }
    co_return Json{{"dropped", dropped}};
}

}  // namespace gmgate::daemon
