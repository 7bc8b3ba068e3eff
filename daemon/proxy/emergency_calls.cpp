// Emergency requests from an unprotected port to the E-CSCF, and the rest of their dialogs in both directions (TS 23.167 §6.2.1,
// TS 24.229 §5.2.10, requirements C.11). The one traffic that leaves the gateway in clear towards a phone, because it came so.
#include <fmt/format.h>

#include "base/log.h"
#include "daemon/proxy/auth_params.h"
#include "daemon/proxy/call_rules.h"
#include "daemon/proxy/header_rules.h"
#include "daemon/proxy/own_names.h"
#include "daemon/proxy/request_syntax.h"
#include "daemon/proxy/router.h"
#include "daemon/proxy/unprotected_port.h"

namespace gmgate::daemon {

using sip::HeaderId;


Task<void> Router::unprotected(std::shared_ptr<sip::ServerTransaction> transaction, const SipInterface& interface,
                               std::string security_server) {
    const sip::Message& request = transaction->request();
    Answer refusal;
    switch (judge_unprotected(request, interface, emergency_)) {
        case UnprotectedVerdict::emergency:
            co_return co_await emergency(transaction);
        case UnprotectedVerdict::drop:
            co_return;
        case UnprotectedVerdict::reject_494:
            refusal = make_answer(494, "Security Agreement Required", "sec-agree outside REGISTER", Counter::unprotected_rejected);
            if (interface.server_initiated) refusal.extra.push_back("Require: sec-agree");
            if (!security_server.empty()) refusal.extra.push_back(fmt::format("Security-Server: {}", security_server));
            break;
        case UnprotectedVerdict::reject_421:
            refusal = make_answer(421, "Extension Required", "this interface asks for a security agreement first", Counter::unprotected_rejected);
            refusal.extra.push_back("Require: sec-agree");
            if (!security_server.empty()) refusal.extra.push_back(fmt::format("Security-Server: {}", security_server));
            break;
        case UnprotectedVerdict::reject_502:
            refusal = make_answer(502, "Bad Gateway", "server-initiated agreement needs exactly one Via", Counter::unprotected_rejected);
            break;
        case UnprotectedVerdict::reject_420:
            refusal = make_answer(420, "Bad Extension", "sec-agree is off on this interface", Counter::unprotected_rejected);
            refusal.extra.push_back("Unsupported: sec-agree");
            break;
        case UnprotectedVerdict::reject_403:
            refusal = make_answer(403, "Forbidden", "only REGISTER and emergency on an unprotected port", Counter::unprotected_rejected);
            break;
    }
    co_await refuse_stranger(transaction, std::move(refusal));
}

Task<void> Router::handle_emergency(std::shared_ptr<sip::ServerTransaction> transaction) {
    const sip::Message& request = transaction->request();
    const auto watch = watch_cancel(*transaction);
    const auto credentials = sip::RequestCredentials::read(request);
    auto objection = check_proxyable(request, false);
    if (!objection) objection = check_unambiguous(request, credentials);
    if (objection) {
        Answer refusal = std::move(*objection);
        co_return co_await refuse_stranger(transaction, std::move(refusal));
    }

    // Which call? A new one opens a dialog (bounded); a known one must come from the address that opened it (C-84).
    const sip::Flow flow = transaction->flow();
    const bool initial = is_initial(request);
    const EmergencyDialog* dialog = initial ? emergency_.open(request, flow) : emergency_.find(request);
    if (dialog == nullptr) {
        Answer refusal = make_answer(503, "Service Unavailable", "too many emergency dialogs", Counter::emergency_refused);
        co_return co_await refuse_stranger(transaction, std::move(refusal));
    }
    if (dialog->ue.remote.address != flow.remote.address) {
        Answer refusal = make_answer(403, "Forbidden", "an emergency dialog of another address", Counter::unprotected_rejected);
        co_return co_await refuse_stranger(transaction, std::move(refusal));
    }
    const std::string token = dialog->token;
    emergency_.moved(token, flow);
    const std::string loop_mark = core_.marks().loop_mark(request, "core " + token);
    objection = check_loop(request, loop_mark);
    if (objection) {
        Answer refusal = std::move(*objection);
        co_return co_await refuse_stranger(transaction, std::move(refusal));
    }
    counters_.add(Counter::emergency_passed);
    log::notice("emergency-passed", {{"method", request.method_name()},
                                     {"peer", flow.remote.to_string()},
                                     {"uri", request.request_uri()},
                                     {"call-id", request.value(HeaderId::call_id)}});
    if (request.method() == sip::Method::invite) (void)transaction->respond(sip::make_response(request, 100, "Trying", {}));

    ToCore rules;
    rules.received = flow;
    rules.via_host = core_.via_host();
    rules.core_uri = token_uri(token, core_.uri_host());
    rules.ue_uri = token_uri(token, reached_over(flow.local.to_string(), flow.transport));
    rules.loop_mark = loop_mark;
    rules.orig_ioi = config_.core.orig_ioi.empty() ? config_.core.visited_network_id : config_.core.orig_ioi;
    rules.own_hosts = own_hosts_;  // C-83: nobody is asserted
    rules.credentials = credentials;
    if (initial) rules.route.emplace();  // an unknown phone does not choose its way through the network
    const auto build = [&](sip::Transport transport) { return request_to_core(request, rules, transport); };
    Result<std::vector<Target>> targets = co_await core_.emergency_next_hops();
    const auto attempts = std::make_shared<CoreAttempts>(core_, targets ? std::move(*targets) : std::vector<Target>{}, build, true);
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
    leg.edit = [&final_status](const sip::Message& response) {
        if (response.status() >= 200 && (final_status < 200 || final_status >= 300)) final_status = response.status();
        return response_to_ue(response);
    };
    leg.towards_core = true;
    leg.again = next_target(attempts);
    leg.other_way = [attempts] { return attempts->other_way(); };
    co_await relay(std::move(leg));
    const bool is_established = final_status >= 200 && final_status < 300;
    if ((initial && !(request.method() == sip::Method::invite && is_established)) || request.method() == sip::Method::bye)
        emergency_.close(token);
    if (!is_established) transaction->forget_when_crowded();  // a stranger asked, and need not acknowledge what it is told
}

Task<void> Router::emergency_from_core(std::shared_ptr<sip::ServerTransaction> transaction, std::string token) {
    const sip::Message& request = transaction->request();
    const auto watch = watch_cancel(*transaction);
    const EmergencyDialog* dialog = emergency_.find_by_token(token);
    const bool is_reachable = dialog != nullptr && (!sip::is_reliable(dialog->ue.transport) || transports_.is_open(dialog->ue.connection));
    if (!is_reachable) {
        Answer refusal = make_answer(480, "Temporarily Unavailable", "the emergency caller is gone");
        co_return co_await answer(transaction, std::move(refusal));
    }
    const sip::Flow flow = dialog->ue;
    if (request.method() == sip::Method::invite) (void)transaction->respond(sip::make_response(request, 100, "Trying", {}));

    ToUe rules;
    rules.received = transaction->flow();
    rules.transport = flow.transport;
    rules.via_host = flow.local.to_string();
    rules.core_uri = token_uri(token, core_.uri_host());
    rules.ue_uri = token_uri(token, reached_over(flow.local.to_string(), flow.transport));
    rules.own_hosts = own_hosts_;

    Relay leg;
    leg.transaction = transaction;
    leg.client = transactions_.send(request_to_ue(request, rules), flow, {.is_urgent = true});
    leg.watch = watch;
    leg.edit = [](const sip::Message& response) { return response_to_core(response, {}); };
    const bool is_bye = request.method() == sip::Method::bye;
    co_await relay(std::move(leg));
    if (is_bye) emergency_.close(token);
}

Task<void> Router::stray_emergency(sip::OwnedMessage message, sip::Flow flow) {
    const EmergencyDialog* dialog = emergency_.find(*message);
    if (dialog == nullptr || dialog->ue.remote.address != flow.remote.address || message->is_response()) co_return;
    ToCore rules;
    rules.credentials = sip::RequestCredentials::read(*message);
    if (check_unambiguous(*message, rules.credentials)) co_return;
    rules.received = flow;
    rules.via_host = core_.via_host();
    rules.own_hosts = own_hosts_;
    Result<std::vector<Target>> targets = co_await core_.emergency_next_hops();
    if (!targets) co_return;
    CoreAttempts::Build build = [&](sip::Transport transport) { return request_to_core(*message, rules, transport); };
    (void)co_await core_.send_stateless(std::move(build), std::move(*targets));
}

}  // namespace gmgate::daemon
