// A request from a phone over its SAs, to the core (TS 24.229 §5.2.6.3, requirements C.9; C-53: SUBSCRIBE for reg like
// any other).
#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/log.h"
#include "daemon/proxy/router.h"
#include "daemon/rules/alternative_service.h"
#include "daemon/rules/auth_params.h"
#include "daemon/rules/call_rules.h"
#include "daemon/rules/header_rules.h"
#include "daemon/rules/identity.h"
#include "daemon/rules/own_names.h"
#include "daemon/rules/request_syntax.h"
#include "daemon/rules/restoration.h"

namespace gmgate::daemon {

using sip::HeaderId;

bool Router::is_in_dialog(const sip::Message& request, const sip::Flow& flow) const {
    if (has_no_to_tag(request)) return false;
    if (core_.is_core_side(flow)) return true;
    const FlowOwner owner = table_.owner_of(flow);
    if (owner.registration == nullptr) return emergency_.covers(request);
    return dialogs_.knows_from_ue(owner.registration->key, request, split_route(request, own_hosts_));
}

// Everything that the forwarded request needs of the registration, copied: no reference into the table survives an
// await.
ToCore Router::rules_from_ue(const sip::Message& request, const sip::Flow& flow, const FlowOwner& owner) const {
    const Registration& registration = *owner.registration;
    const Endpoint ours = owner.set != nullptr ? owner.set->gateway_server() : flow.local;
    const std::string user = needs_record_route(request)
                                 ? dialogs_.user_towards_core(registration.token, registration.key, request)
                                 : std::string();
    ToCore rules;
    rules.received = flow;
    rules.core_user = user;
    rules.ue_uri = token_uri(user, ue_uri_host(config_, registration.realm_id, ours, registration.transport));
    rules.orig_ioi = config_.core.orig_ioi.empty() ? config_.core.visited_network_id : config_.core.orig_ioi;
    rules.own_hosts = own_hosts_;
    rules.registered = registration.impus;
    return rules;
}

void Router::note_unknown_dialog(const sip::Message& request, const Registration& registration) {
    counters_.add(Counter::unknown_dialog);
    log::debug("proxy-unknown-dialog", {{"impi", registration.key.impi.value},
                                        {"method", request.method_name()},
                                        {"call-id", request.value(HeaderId::call_id)}});
}

Task<void> Router::answer_for_gateway(std::shared_ptr<sip::ServerTransaction> transaction, Aim aim) {
    const sip::Message& request = transaction->request();
    if (request.method() == sip::Method::options) {
        if (co_await aim())
            (void)transaction->respond(
                sip::make_response(request, 200, "OK", transaction->tag(), {"Allow: OPTIONS, REGISTER"}));
        co_return;
    }
    Answer refusal =
        make_answer(405, "Method Not Allowed", "it is for the gateway itself, which answers OPTIONS and REGISTER only");
    refusal.extra.push_back("Allow: OPTIONS, REGISTER");
    co_await answer(transaction, std::move(refusal), std::move(aim));
}

// May it go on? Unambiguous, not on its second way through here, and with the agreed Security-Verify.
std::optional<Answer> Router::objection_from_ue(const sip::Message& request, const FlowOwner& owner,
                                                const SipInterface* interface, const ToCore& rules) const {
    auto objection = check_proxyable(request, interface != nullptr && interface->refuse_mediasec);
    const bool is_mirrored = owner.set != nullptr && mirrors_to_the_letter(request, owner.set->security_server);
    if (!objection) objection = check_unambiguous(request, rules.credentials, is_mirrored);
    if (!objection) objection = check_loop(request, rules.loop_mark);
    if (!objection)
        objection = check_security_verify(request, owner.set, *owner.registration,
                                          interface != nullptr && interface->ignore_q);  // C-64
    return objection;
}

// Which way through the core? Gives the refusal when there is none.
std::optional<Answer> Router::choose_route(FromUe& way, const Registration& registration, const SipInterface* interface,
                                           const OwnRoute& route) {
    const sip::Message& request = way.transaction->request();
    const bool initial = way.rules.is_initial;
    const bool is_sos_contact = is_emergency_contact(registration.key);
    way.is_urgent = initial && interface != nullptr && is_emergency_request(request, interface->emergency_numbers);
    const bool has_several = registration.identities.size() > 1;
    const auto& service_route = has_several ? route_for(registration, asserted_identity(request, registration.impus))
                                            : registration.service_route.value();
    if (way.is_urgent) {
        if (interface->alternative_service && !is_sos_contact &&
            is_dialled_number(request, interface->emergency_numbers))
            return alternative_service(token_uri(way.token, core_.side().uri_host));  // as in Path
        way.rules.route.emplace();  // C-83: to the E-CSCF, whatever Service-Route says
        counters_.add(Counter::emergency_passed);
    } else if (is_sos_contact && (initial || !is_call_method(request.method()))) {  // C-82
        return make_answer(403, "Forbidden",
                           "an emergency registration serves emergency requests and their calls only");
    } else if (initial && compare_route(route.rest, service_route) == RouteVerdict::differs) {
        way.rules.route = service_route;  // C-60: replaced by the stored one
        counters_.add(Counter::route_replaced);
        log::debug("proxy-route-replaced", {{"impi", registration.key.impi.value},
                                            {"method", request.method_name()},
                                            {"route", fmt::format("{}", fmt::join(route.rest, ", "))}});
    }
    way.service_route = has_several && !initial ? registration.all_routes() : service_route;
    way.top_route = way.rules.route ? first_route_uri(*way.rules.route) : first_route_uri(route.rest);
    return std::nullopt;
}

Task<void> Router::handle_from_ue(std::shared_ptr<sip::ServerTransaction> transaction) {
    const sip::Message& request = transaction->request();

    // Who is it? The kernel says which set carried it (B-23); nothing but REGISTER may come over a temporary one (C-45,
    // H-4).
    const FlowOwner owner = table_.owner_of(transaction->flow());
    if (owner.registration == nullptr || owner.registration->ended) {
        counters_.add(Counter::wrong_sa);  // TS 33.203 §7.4.2a: discarded
        log::info("proxy-wrong-sa", {{"method", request.method_name()},
                                     {"peer", transaction->flow().remote.to_string()},
                                     {"local", transaction->flow().local.to_string()}});
        co_return;
    }
    const Registration& registration = *owner.registration;
    const SipInterface* interface = interface_of(config_, registration.realm_id);
    FromUe way{.transaction = transaction, .token = registration.token, .key = registration.key};
    way.aim = [this, transaction, token = registration.token] { return aim_at_ue(transaction, token); };
    way.watch = watch_cancel(*transaction, Sender::phone);
    // The phone gone: what it called is cancelled.
    way.entry.emplace(open_requests_.add(registration, OpenRequests::Side::from_phone, way.watch));
    if (sip::is_reliable(transaction->flow().transport)) transports_.keep_open(transaction->flow().connection, true);

    way.rules = rules_from_ue(request, transaction->flow(), owner);
    way.rules.answer_mark = dialogs_.answer_mark(Leg::to_core, contact_text(registration.key), request);
    way.rules.loop_mark = core_.marks().loop_mark(request, "core " + registration.token);
    way.rules.credentials = sip::RequestCredentials::read(request);
    auto refusal = objection_from_ue(request, owner, interface, way.rules);
    if (!refusal) {
        // Inside a dialog? Only when it is one that passed here; whoever makes up a To tag is treated as if there were
        // none.
        const OwnRoute route = split_route(request, own_hosts_);
        way.rules.own_routes = route.ours;
        way.rules.is_initial = !dialogs_.knows_from_ue(registration.key, request, route);
        if (way.rules.is_initial && !has_no_to_tag(request)) note_unknown_dialog(request, registration);
        if (way.rules.is_initial && asks_gateway(request, route, own_hosts_))
            co_return co_await answer_for_gateway(transaction, way.aim);
        refusal = choose_route(way, registration, interface, route);
    }
    if (refusal) co_return co_await answer(transaction, std::move(*refusal), way.aim);
    co_await forward_from_ue(way);
}

// No reference into the table from here on: everything is in `way`.
Task<void> Router::forward_from_ue(FromUe& way) {
    const sip::Message& request = way.transaction->request();

    // Before anything can answer: the transaction's own late 100 (RFC 4320 §4.1) has to come to port_us as well (B-15).
    const bool is_reachable = co_await way.aim();
    if (is_reachable && request.method() == sip::Method::invite)  // RFC 3261 §17.2.1: at once
        (void)way.transaction->respond(sip::make_response(request, 100, "Trying", {}));

    // Where to? Then the first element of the core that can be sent to; the others wait in `attempts`.
    Result<std::vector<Target>> targets = failure(Reaction::internal, {});
    if (way.is_urgent) targets = co_await core_.emergency_next_hops();
    else targets = co_await core_.targets_for(way.top_route, way.service_route);
    std::string restoration;
    if (!way.is_urgent && understands_restoration(request))
        restoration = token_uri(way.token, core_.side_towards(targets).uri_host);  // as in Path
    const auto unreachable = [&](const Error& error) {
        Answer refusal = no_answer(error, true, *way.watch);
        if (refusal.status == 504 && !restoration.empty()) ask_for_restoration(refusal, restoration);  // C-66
        return refusal;
    };
    if (!targets) {
        Answer refusal = unreachable(targets.error());
        co_return co_await answer(way.transaction, std::move(refusal), way.aim);
    }
    const auto build = [&](sip::Transport transport, const CoreSide& side) {
        return request_to_core(request, named(way.rules, side), transport);
    };
    const Importance importance = way.is_urgent          ? Importance::urgent
                                  : way.rules.is_initial ? Importance::ordinary
                                                         : Importance::ongoing;
    const auto attempts =
        std::make_shared<CoreAttempts>(core_, std::move(*targets), build, Traffic::phones, importance);
    auto client = co_await attempts->next();
    if (!client) {
        Answer refusal = unreachable(client.error());
        co_return co_await answer(way.transaction, std::move(refusal), way.aim);
    }
    counters_.add(Counter::requests_from_ue);

    Relay leg;
    leg.transaction = way.transaction;
    leg.client = std::move(*client);
    leg.watch = way.watch;
    const MarkFor mark{dialogs_, way.token, way.key, own_hosts_};
    leg.edit = [mark](const sip::Message& response) { return response_to_ue(response, mark); };
    leg.aim = way.aim;
    leg.again = next_target(attempts);
    leg.other_way = [attempts] { return attempts->other_way(); };
    leg.towards_core = true;
    leg.restoration = restoration;
    co_await relay(std::move(leg));
}

}  // namespace gmgate::daemon
