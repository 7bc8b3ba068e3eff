// A request from the core, to a phone over its SAs (TS 24.229 §5.2.6.4, requirements C.10).
#include "base/log.h"
#include "daemon/proxy/router.h"
#include "daemon/rules/call_rules.h"
#include "daemon/rules/header_rules.h"
#include "daemon/rules/own_names.h"

namespace gmgate::daemon {

using sip::HeaderId;

namespace {

constexpr std::size_t kOurOctets = 350;  // what Via and Record-Route add to a request, at most

}  // namespace

Task<void> Router::handle_from_core(std::shared_ptr<sip::ServerTransaction> transaction) {
    const sip::Message& request = transaction->request();
    core_.note_request(transaction->flow(), request);
    if (auto objection = check_proxyable(request, false, Sender::core)) {
        Answer refusal = std::move(*objection);
        co_return co_await answer(transaction, std::move(refusal));
    }

    // Whom is it for? The token in our Path or Record-Route says it (C-70).
    const std::optional<std::string_view> user = own_user_of(request, own_hosts_);
    const std::optional<std::string> token = user ? std::optional(std::string(token_in(*user))) : std::nullopt;
    if (token && token->empty() && request.method() == sip::Method::options) {  // the core looks whether we live
        (void)transaction->respond(sip::make_response(request, 200, "OK", "gmgate"));
        co_return;
    }
    if (token && is_for_emergency_call(request, *user)) co_return co_await emergency_from_core(transaction, *token);
    if (!token) {
        Answer refusal =
            make_answer(404, "Not Found", "neither Route nor Request-URI names us", Counter::not_registered);
        co_return co_await answer(transaction, std::move(refusal));
    }
    if (table_.find_by_token(*token) == nullptr &&
        core_.marks().judge(*token) == TokenVerdict::tampered) {  // RFC 5626 §5.3.1
        Answer refusal = make_answer(403, "Forbidden", "the token was tampered with", Counter::not_registered);
        co_return co_await answer(transaction, std::move(refusal));
    }
    // A token that we gave out once: the registration has ended here before it did in the core (expired, its SAs
    // deleted, a reboot).
    if (table_.find_by_token(*token) == nullptr) {
        Answer refusal =
            make_answer(480, "Temporarily Unavailable",
                        "no registration with this token: the phone must register again", Counter::not_registered);
        co_return co_await answer(transaction, std::move(refusal));
    }
    co_await forward_to_ue(transaction, *token, std::string(*user));
}

ToUe Router::rules_to_ue(const sip::ServerTransaction& transaction, const Registration& registration,
                         std::string_view token, const UePath& path) const {
    const sip::Message& request = transaction.request();
    ToUe rules;
    rules.received = transaction.flow();
    rules.transport = path.flow.transport;
    rules.via_host = path.via_host;
    const std::string marked =
        needs_record_route(request) ? dialogs_.user_towards_ue(token, registration.key, request) : std::string();
    rules.core_uri = token_uri(marked, core_.side_of(transaction.flow()).uri_host);
    if (const auto ours = registration.reached_at())
        rules.ue_uri = token_uri(marked, ue_uri_host(config_, registration.realm_id, *ours, registration.transport));
    rules.answer_mark = dialogs_.answer_mark(Leg::to_phone, contact_text(registration.key), request);
    rules.own_hosts = own_hosts_;
    return rules;
}

ResponseToCore Router::rules_back(const sip::Message& request, const Registration& registration,
                                  std::string_view user) const {
    ResponseToCore back;
    back.registered = registration.impus;
    back.called_party = std::string(request.value(HeaderId::p_called_party_id));
    back.charging_vector = std::string(request.value(HeaderId::p_charging_vector));
    back.term_ioi = config_.core.orig_ioi.empty() ? config_.core.visited_network_id : config_.core.orig_ioi;
    back.asserts = !dialogs_.knows_from_core(registration.key, request, user);
    return back;
}

Task<void> Router::forward_to_ue(std::shared_ptr<sip::ServerTransaction> transaction, std::string token,
                                 std::string user) {
    const sip::Message& request = transaction->request();
    const auto watch = watch_cancel(*transaction, Sender::core);
    const std::string loop_mark = core_.marks().loop_mark(request, "ue " + token);
    if (auto objection = check_loop(request, loop_mark)) {
        Answer refusal = std::move(*objection);
        co_return co_await answer(transaction, std::move(refusal));
    }
    if (request.method() == sip::Method::invite)
        (void)transaction->respond(sip::make_response(request, 100, "Trying", {}));

    // How is it reached? Over the set in use, or not at all (C-71, H-8).
    const Result<UePath> path = co_await path_to_ue(token, request.bytes().size() + kOurOctets);
    const Registration* registration = table_.find_by_token(token);
    if (!path || registration == nullptr || !registration->reached_at()) {
        Answer refusal = make_answer(480, "Temporarily Unavailable",
                                     path ? "deregistered meanwhile" : path.error().text, Counter::no_set);
        co_return co_await answer(transaction, std::move(refusal));
    }
    if (watch->is_cancelled()) {
        Answer refusal = make_answer(487, "Request Terminated", "cancelled before it was forwarded");
        co_return co_await answer(transaction, std::move(refusal));
    }
    const auto entry = open_requests_.add(*registration, OpenRequests::Side::to_phone, watch);

    ToUe rules = rules_to_ue(*transaction, *registration, token, *path);
    rules.loop_mark = loop_mark;
    const ResponseToCore back = rules_back(request, *registration, user);

    Relay leg;
    leg.transaction = transaction;
    leg.client = transactions_.send(request_to_ue(request, rules), path->flow);
    // The connection was lost (reset, or silent for the user timeout), or the set ended before the phone answered. In
    // the same transaction over the set in use now: a connection of ours to port_us, which becomes UDP when the phone
    // does not answer the SYN; then UDP.
    int lost = 0;
    sip::Flow last = path->flow;
    leg.again = [&](const Result<sip::OwnedMessage>& outcome) -> Task<std::unique_ptr<sip::ClientTransaction>> {
        if (outcome || outcome.error().reaction != Reaction::broken || ++lost > 2) co_return nullptr;
        if (sip::is_connection_lost(outcome.error()))
            co_return nullptr;  // it has the request already (RFC 3261 §8.2.2.2)
        const Result<UePath> other = co_await path_to_ue(token, request.bytes().size() + kOurOctets, lost == 2);
        if (!other || other->flow == last) co_return nullptr;
        last = other->flow;
        rules.transport = last.transport;
        rules.via_host = other->via_host;
        co_return transactions_.send(request_to_ue(request, rules), last);
    };
    leg.other_way = [this, token] { return other_way_to_ue(token); };
    leg.watch = watch;
    leg.edit = [back](const sip::Message& response) { return response_to_core(response, back); };
    counters_.add(Counter::requests_to_ue);
    co_await relay(std::move(leg));
}

}  // namespace gmgate::daemon
