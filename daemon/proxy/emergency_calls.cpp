// Emergency requests from an unprotected port to the E-CSCF, and the rest of their dialogs in both directions
// (TS 23.167 §6.2.1, TS 24.229 §5.2.10, requirements C.11). The one traffic that leaves the gateway in clear towards a
// phone, because it came so.
#include <algorithm>

#include <fmt/format.h>

#include "base/log.h"
#include "daemon/agreement/contact.h"
#include "daemon/proxy/emergency_marks.h"
#include "daemon/proxy/router.h"
#include "daemon/proxy/unprotected_port.h"
#include "daemon/rules/auth_params.h"
#include "daemon/rules/call_rules.h"
#include "daemon/rules/header_rules.h"
#include "daemon/rules/own_names.h"
#include "daemon/rules/request_syntax.h"
#include "sip/transport/way_back.h"

namespace gmgate::daemon {

using sip::HeaderId;

namespace {

/// RFC 3261 §18.2.2: an answer in clear goes to the port that Via names, to the source port only with rport.
sip::Flow way_back(const sip::ServerTransaction& transaction) {
    const sip::Flow& flow = transaction.flow();
    return sip::is_reliable(flow.transport) ? flow : unprotected_reply_flow(transaction.request(), flow);
}

/// The route set of a dialog as the caller writes it, without our pair at its head (RFC 3261 §12.1.2); the token is
/// this call's alone.
std::vector<std::string> route_behind_us(const sip::Message& response, std::string_view token) {
    const std::vector<std::string_view> values = values_of(response, HeaderId::record_route);
    std::vector<std::string> route;
    for (auto value = values.rbegin(); value != values.rend(); ++value) {
        const auto address = sip::NameAddr::parse(*value);
        const auto uri = address ? sip::Uri::parse(address->uri) : std::nullopt;
        if (route.empty() && uri && token_in(uri->user) == token) continue;
        route.emplace_back(*value);
    }
    return route;
}

}  // namespace

Task<void> Router::unprotected(std::shared_ptr<sip::ServerTransaction> transaction, const SipInterface& interface,
                               std::string security_server) {
    const sip::Message& request = transaction->request();
    transaction->set_reply_flow(way_back(*transaction));
    revive_from_phone(request, transaction->flow());
    Answer refusal;
    switch (judge_unprotected(request, interface, emergency_)) {
        case UnprotectedVerdict::emergency:
            co_return co_await emergency(transaction);
        case UnprotectedVerdict::drop:
            co_return;
        case UnprotectedVerdict::reject_494:
            refusal = make_answer(494, "Security Agreement Required", "sec-agree outside REGISTER",
                                  Counter::unprotected_rejected);
            if (interface.server_initiated) refusal.extra.push_back("Require: sec-agree");
            if (!security_server.empty()) refusal.extra.push_back(fmt::format("Security-Server: {}", security_server));
            break;
        case UnprotectedVerdict::reject_421:
            refusal = make_answer(421, "Extension Required", "this interface asks for a security agreement first",
                                  Counter::unprotected_rejected);
            refusal.extra.push_back("Require: sec-agree");
            if (!security_server.empty()) refusal.extra.push_back(fmt::format("Security-Server: {}", security_server));
            break;
        case UnprotectedVerdict::reject_502:
            refusal = make_answer(502, "Bad Gateway", "server-initiated agreement needs exactly one Via",
                                  Counter::unprotected_rejected);
            break;
        case UnprotectedVerdict::reject_420:
            refusal =
                make_answer(420, "Bad Extension", "sec-agree is off on this interface", Counter::unprotected_rejected);
            refusal.extra.push_back("Unsupported: sec-agree");
            break;
        case UnprotectedVerdict::reject_403:
            refusal = make_answer(
                403, "Forbidden",
                std::string(interface.serves_clear_ports() ? "only REGISTER and emergency on an unprotected port"
                                                           : kNoClearService),
                Counter::unprotected_rejected);
            break;
    }
    co_await refuse_stranger(transaction, std::move(refusal));
}

// Which call? A new one opens a dialog (bounded); one that stands must be meant by a request of its own and come from
// its address (C-84).
std::optional<Answer> Router::enter_emergency(const sip::ServerTransaction& transaction, std::string& token) {
    const sip::Message& request = transaction.request();
    const bool initial = has_no_to_tag(request);
    if (!initial && !emergency_.permits(request))
        return make_answer(403, "Forbidden", "no request of an emergency dialog that stands",
                           Counter::unprotected_rejected);
    const std::uint64_t evicted = emergency_.evicted();
    const EmergencyDialog* dialog =
        initial ? emergency_.open(request, way_back(transaction)) : emergency_.find(request);
    counters_.add(Counter::emergency_evicted, emergency_.evicted() - evicted);
    if (dialog == nullptr)
        return make_answer(503, "Service Unavailable", "too many emergency dialogs", Counter::emergency_refused);
    if (dialog->ue.remote.address != transaction.flow().remote.address)
        return make_answer(403, "Forbidden", "an emergency dialog of another address", Counter::unprotected_rejected);
    token = dialog->token;
    emergency_.moved(token, way_back(transaction));
    return std::nullopt;
}

// An initial request goes to any E-CSCF. What follows goes along the dialog's route set where that begins with an
// element that we know, else to the element that has answered: of two equal E-CSCFs only one has the call. After a
// restart it is not known who answered; an E-CSCF whose Record-Route is a name gets the request by way of any other.
Task<Result<std::vector<Target>>> Router::emergency_targets(std::string token, std::vector<std::string> route) {
    const EmergencyDialog* dialog = emergency_.find_by_token(token);
    const std::optional<Target> hop = dialog != nullptr ? dialog->hop : std::nullopt;
    Result<std::vector<Target>> all = co_await core_.emergency_next_hops();
    const std::string top = first_route_uri(route);
    const auto uri = sip::Uri::parse(top);
    const auto address = uri ? Address::parse(uri->host) : std::nullopt;
    if (address && all) {
        const auto named = std::ranges::find_if(*all, [&](const Target& target) {
            const Port port = uri->port.value != 0 ? uri->port : sip::default_port(to_sip(target.transport));
            return target.endpoint == Endpoint{*address, port};
        });
        if (named != all->end()) {
            std::vector<Target> one{*named};
            co_return one;
        }
    }
    if (!hop) co_return all;
    std::vector<Target> one{*hop};
    co_return one;
}

void Router::learn_of_emergency(const std::string& token, const sip::Message& response,
                                const std::optional<Target>& from, bool initial) {
    if (response.status() <= 100 || response.status() >= 300) return;
    emergency_.learn(token, response, initial ? route_behind_us(response, token) : std::vector<std::string>{});
    if (initial && from) emergency_.stays_at(token, *from);
    if (response.status() >= 200 && (initial || response.method() == sip::Method::invite)) emergency_.answered(token);
}

ToCore Router::emergency_rules(const sip::Message& request, const sip::Flow& flow, const std::string& token) const {
    ToCore rules;
    rules.received = flow;
    rules.core_user = token;
    if (needs_record_route(request)) {  // by its marks the call is known again after a restart
        const ContactKey owner = emergency_owner(token, sip::tag_of(request, HeaderId::from), {});
        rules.core_user = dialogs_.user_towards_core(token, owner, request);
    }
    rules.ue_uri = token_uri(rules.core_user, reached_over(flow.local.to_string(), flow.transport));
    rules.orig_ioi = config_.core.orig_ioi.empty() ? config_.core.visited_network_id : config_.core.orig_ioi;
    rules.own_hosts = own_hosts_;  // C-83: nobody is asserted
    rules.is_initial = has_no_to_tag(request);
    rules.route.emplace();  // an unknown phone does not choose its way through the network
    const EmergencyDialog* dialog = emergency_.find_by_token(token);
    const EmergencyLeg* leg = dialog != nullptr ? dialog->leg(sip::tag_of(request, HeaderId::to)) : nullptr;
    if (leg != nullptr) rules.route = leg->route;
    return rules;
}

// What may stop it; else `rules` are those of its call.
std::optional<Answer> Router::admit_emergency(const sip::ServerTransaction& transaction, std::string& token,
                                              ToCore& rules) {
    const sip::Message& request = transaction.request();
    const auto credentials = sip::RequestCredentials::read(request);
    auto objection = check_proxyable(request, false);
    if (!objection) objection = check_unambiguous(request, credentials);
    if (!objection) objection = enter_emergency(transaction, token);
    if (objection) return objection;
    const std::string loop_mark = core_.marks().loop_mark(request, "core " + token);
    if ((objection = check_loop(request, loop_mark))) return objection;
    rules = emergency_rules(request, transaction.flow(), token);
    rules.credentials = credentials;
    rules.answer_mark = dialogs_.answer_mark(Leg::to_core, token, request);
    rules.loop_mark = loop_mark;
    return std::nullopt;
}

Task<void> Router::handle_emergency(std::shared_ptr<sip::ServerTransaction> transaction) {
    const sip::Message& request = transaction->request();
    const auto watch = watch_cancel(*transaction, Sender::phone);
    transaction->set_reply_flow(way_back(*transaction));
    const bool initial = has_no_to_tag(request), is_invite = request.method() == sip::Method::invite;
    std::string token;
    ToCore rules;
    if (auto objection = admit_emergency(*transaction, token, rules)) {
        Answer refusal = std::move(*objection);
        co_return co_await refuse_stranger(transaction, std::move(refusal));
    }
    if (initial)
        emergency_.on_evicted(token, [watch] {
            watch->drop(make_answer(503, "Service Unavailable", "it gave way to newer emergency calls",
                                    Counter::emergency_refused));
        });
    counters_.add(Counter::emergency_passed);
    log::notice("emergency-passed", {{"method", request.method_name()},
                                     {"peer", transaction->flow().remote.to_string()},
                                     {"uri", request.request_uri()},
                                     {"call-id", request.value(HeaderId::call_id)}});
    if (is_invite) (void)transaction->respond(sip::make_response(request, 100, "Trying", {}));

    const auto build = [&](sip::Transport transport, const CoreSide& side) {
        return request_to_core(request, named(rules, side), transport);
    };
    Result<std::vector<Target>> targets = co_await emergency_targets(token, *rules.route);
    const auto attempts = std::make_shared<CoreAttempts>(core_, targets ? std::move(*targets) : std::vector<Target>{},
                                                         build, Traffic::strangers, Importance::urgent);
    auto client = co_await attempts->next();
    if (!client) {
        if (initial) emergency_.close(token);
        Answer refusal = no_answer(targets ? client.error() : targets.error(), true, *watch);
        co_return co_await answer(transaction, std::move(refusal));
    }

    int final_status = 0;
    Relay leg;
    leg.transaction = transaction;
    leg.client = std::move(*client);
    leg.watch = watch;
    leg.edit = [&](const sip::Message& response) {
        if (response.status() >= 200 && (final_status < 200 || final_status >= 300)) final_status = response.status();
        learn_of_emergency(token, response, attempts->current(), initial);
        return emergency_response(token, response);
    };
    leg.towards_core = true;
    leg.again = next_target(attempts);
    leg.other_way = [attempts] { return attempts->other_way(); };
    co_await relay(std::move(leg));
    const bool is_established = final_status >= 200 && final_status < 300;
    if ((initial && !(is_invite && is_established)) || request.method() == sip::Method::bye) emergency_.close(token);
    if (!is_established)
        transaction->forget_when_crowded();  // a stranger asked, and need not acknowledge what it is told
}

Task<void> Router::emergency_from_core(std::shared_ptr<sip::ServerTransaction> transaction, std::string token) {
    const sip::Message& request = transaction->request();
    const auto watch = watch_cancel(*transaction, Sender::core);
    const EmergencyDialog* dialog = emergency_.find_by_token(token);
    const bool is_reachable =
        dialog != nullptr && (!sip::is_reliable(dialog->ue.transport) || transports_.is_open(dialog->ue.connection));
    if (!is_reachable) {
        Answer refusal = make_answer(480, "Temporarily Unavailable", "the emergency caller is gone");
        co_return co_await answer(transaction, std::move(refusal));
    }
    const sip::Flow flow = dialog->ue;
    emergency_.learn(token, request, {});
    if (request.method() == sip::Method::invite)
        (void)transaction->respond(sip::make_response(request, 100, "Trying", {}));

    ToUe rules;
    rules.received = transaction->flow();
    rules.transport = flow.transport;
    rules.via_host = flow.local.to_string();
    rules.core_uri = token_uri(token, core_.side_of(transaction->flow()).uri_host);
    rules.ue_uri = token_uri(token, reached_over(flow.local.to_string(), flow.transport));
    rules.answer_mark = dialogs_.answer_mark(Leg::to_phone, token, request);
    rules.own_hosts = own_hosts_;

    Relay leg;
    leg.transaction = transaction;
    leg.client = transactions_.send(request_to_ue(request, rules), flow, {.is_urgent = true});
    leg.watch = watch;
    leg.edit = [this, token](const sip::Message& response) {
        const bool stands = response.status() >= 200 && response.status() < 300;
        if (stands && response.method() == sip::Method::invite) emergency_.answered(token);
        return response_to_core(response, {});
    };
    const bool is_bye = request.method() == sip::Method::bye;
    co_await relay(std::move(leg));
    if (is_bye) emergency_.close(token);
}

Task<void> Router::stray_emergency(sip::OwnedMessage message, sip::Flow flow) {
    if (message->is_response() || !emergency_.permits(*message)) co_return;
    const EmergencyDialog* dialog = emergency_.find(*message);
    if (dialog == nullptr) co_return;
    if (sip::door_of_ends(dialog->ue) != sip::door_of_ends(flow))
        co_return drop_stray(*message, flow, "an ACK in the emergency call of another address or port");
    const auto credentials = sip::RequestCredentials::read(*message);
    if (check_unambiguous(*message, credentials)) co_return;  // nobody answers an ACK
    const std::string token = dialog->token;
    ToCore rules = emergency_rules(*message, flow, token);
    rules.credentials = credentials;
    Result<std::vector<Target>> targets = co_await emergency_targets(token, *rules.route);
    if (!targets) co_return;
    CoreAttempts::Build build = [&](sip::Transport transport, const CoreSide& side) {
        return request_to_core(*message, named(rules, side), transport);
    };
    (void)co_await core_.send_stateless(std::move(build), std::move(*targets), Traffic::strangers);
}

}  // namespace gmgate::daemon
