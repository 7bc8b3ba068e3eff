// A request from a phone over its SAs, to the core (TS 24.229 §5.2.6.3, requirements C.9; C-53: SUBSCRIBE for reg like any other).
#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/log.h"
#include "daemon/proxy/auth_params.h"
#include "daemon/proxy/header_rules.h"
#include "daemon/proxy/identity.h"
#include "daemon/proxy/own_names.h"
#include "daemon/proxy/request_syntax.h"
#include "daemon/proxy/restoration.h"
#include "daemon/proxy/router.h"
#include "daemon/proxy/call_rules.h"

namespace gmgate::daemon {

using sip::HeaderId;

Task<void> Router::handle_from_ue(std::shared_ptr<sip::ServerTransaction> transaction) {
    const sip::Message& request = transaction->request();

    // Who is it? The kernel says which set carried it (B-23); nothing but REGISTER may come over a temporary one (C-45, H-4).
    const FlowOwner owner = table_.owner_of(transaction->flow());
    if (owner.registration == nullptr || owner.registration->ended) {
        counters_.add(Counter::wrong_sa);  // TS 33.203 §7.4.2a: discarded
        log::info("proxy-wrong-sa", {{"method", request.method_name()},
                                     {"peer", transaction->flow().remote.to_string()},
                                     {"local", transaction->flow().local.to_string()}});
        co_return;
    }
    const Registration& registration = *owner.registration;
    const std::string token = registration.token;
    const SipInterface* interface = interface_of(config_, registration.realm_id);
    const Aim aim = [this, transaction, token] { return aim_at_ue(transaction, token); };
    const auto watch = watch_cancel(*transaction);
    const auto entry = open_requests_.add(registration, OpenRequests::Side::from_phone, watch);  // gone: what it called is cancelled
    if (sip::is_reliable(transaction->flow().transport)) transports_.keep_open(transaction->flow().connection, true);

    // May it go on?
    const std::string loop_mark = core_.marks().loop_mark(request, "core " + token);
    auto objection = check_proxyable(request, interface != nullptr && interface->refuse_mediasec);
    const auto credentials = sip::RequestCredentials::read(request);
    if (!objection) objection = check_unambiguous(request, credentials);
    if (!objection) objection = check_loop(request, loop_mark);
    if (!objection)
        objection = check_security_verify(request, owner.set, registration, interface != nullptr && interface->ignore_q);  // C-64
    if (objection) {
        Answer refusal = std::move(*objection);
        co_return co_await answer(transaction, std::move(refusal), aim);
    }

    // Everything that the forwarded request needs of the registration, copied: no reference into the table survives an await.
    ToCore rules;
    rules.received = transaction->flow();
    rules.via_host = core_.via_host();
    rules.core_uri = token_uri(token, core_.uri_host());
    rules.ue_uri = token_uri(token, ue_uri_host(config_, registration.realm_id, owner.set ? owner.set->gateway_server() : transaction->flow().local, registration.transport));
    rules.loop_mark = loop_mark;
    rules.orig_ioi = config_.core.orig_ioi.empty() ? config_.core.visited_network_id : config_.core.orig_ioi;
    rules.own_hosts = own_hosts_;
    rules.credentials = credentials;
    rules.registered = registration.impus;
    const std::vector<std::string> remaining = remaining_route(request, own_hosts_);
    const bool is_urgent = is_initial(request) && interface != nullptr && is_emergency(request.request_uri(), interface->emergency_numbers);
    if (is_urgent) {
        rules.route.emplace();  // C-83: to the E-CSCF, whatever Service-Route says
        counters_.add(Counter::emergency_passed);
    } else if (is_initial(request)) {
        if (is_emergency_contact(registration.key)) {  // C-82
            Answer refusal = make_answer(403, "Forbidden", "an emergency registration serves emergency requests only");
            co_return co_await answer(transaction, std::move(refusal), aim);
        }
        if (compare_route(remaining, registration.service_route) == RouteVerdict::differs) {  // C-60: replaced by the stored one
            rules.route = registration.service_route;
            counters_.add(Counter::route_replaced);
            log::debug("proxy-route-replaced", {{"impi", registration.key.impi.value},
                                               {"method", request.method_name()},
                                               {"route", fmt::format("{}", fmt::join(remaining, ", "))}});
        }
    }

    const std::vector<std::string> service_route = registration.service_route;
    const std::string top_route = first_route_uri(rules.route ? *rules.route : remaining);

    // Before anything can answer: the transaction's own late 100 (RFC 4320 §4.1) has to come to port_us as well (B-15).
    const bool is_reachable = co_await aim();
    if (is_reachable && request.method() == sip::Method::invite)  // RFC 3261 §17.2.1: at once
        (void)transaction->respond(sip::make_response(request, 100, "Trying", {}));

    // Where to? Then the first element of the core that can be sent to; the others wait in `attempts`.
    Result<std::vector<Target>> targets = failure(Reaction::internal, {});
    if (is_urgent) targets = co_await core_.emergency_next_hops();
    else targets = co_await core_.targets_for(top_route, service_route);
    const bool restores = !is_urgent && understands_restoration(request);
    std::string restoration;
    if (restores) restoration = rules.core_uri;
    const auto unreachable = [&](const Error& error) {
        Answer refusal = no_answer(error, true, *watch);
        if (refusal.status == 504 && !restoration.empty()) ask_for_restoration(refusal, restoration);  // C-66
        return refusal;
    };
    if (!targets) {
        Answer refusal = unreachable(targets.error());
        co_return co_await answer(transaction, std::move(refusal), aim);
    }
    const auto build = [&](sip::Transport transport) { return request_to_core(request, rules, transport); };
    const auto attempts = std::make_shared<CoreAttempts>(core_, std::move(*targets), build, is_urgent);
    auto client = co_await attempts->next();
    if (!client) {
        Answer refusal = unreachable(client.error());
        co_return co_await answer(transaction, std::move(refusal), aim);
    }
    counters_.add(Counter::requests_from_ue);

    Relay leg;
    leg.transaction = transaction;
    leg.client = std::move(*client);
    leg.watch = watch;
    leg.edit = response_to_ue;
    leg.aim = aim;
    leg.again = next_target(attempts);
    leg.other_way = [attempts] { return attempts->other_way(); };
    leg.towards_core = true;
    leg.restoration = restoration;
    co_await relay(std::move(leg));
}

}  // namespace gmgate::daemon
