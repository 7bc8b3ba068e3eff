// A request from a phone over its SAs, to the core (TS 24.229 §5.2.6.3, requirements C.9).
#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/log.h"
#include "daemon/proxy/auth_params.h"
#include "daemon/proxy/header_rules.h"
#include "daemon/proxy/identity.h"
#include "daemon/proxy/own_names.h"
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
    if (sip::is_reliable(transaction->flow().transport)) transports_.keep_open(transaction->flow().connection, true);

    // May it go on?
    auto objection = check_proxyable(request, interface != nullptr && interface->refuse_mediasec);
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
    rules.ue_uri = token_uri(token, ue_uri_host(config_, registration.realm_id, owner.set ? owner.set->gateway_server() : transaction->flow().local),
                             transaction->flow().transport == sip::Transport::tls);
    rules.orig_ioi = config_.core.orig_ioi.empty() ? config_.core.visited_network_id : config_.core.orig_ioi;
    rules.own_hosts = own_hosts_;
    rules.registered = registration.impus;
    if (is_initial(request)) {
        const std::vector<std::string> remaining = remaining_route(request, own_hosts_);
        if (compare_route(remaining, registration.service_route) == RouteVerdict::differs) {  // C-60: replaced by the stored one
            rules.route = registration.service_route;
            counters_.add(Counter::route_replaced);
            log::debug("proxy-route-replaced", {{"impi", registration.key.impi.value},
                                               {"method", request.method_name()},
                                               {"route", fmt::format("{}", fmt::join(remaining, ", "))}});
        }
    }

    // Before anything can answer: the transaction's own late 100 (RFC 4320 §4.1) has to come to port_us as well (B-15).
    const bool is_reachable = co_await aim();
    if (is_reachable && request.method() == sip::Method::invite)  // RFC 3261 §17.2.1: at once
        (void)transaction->respond(sip::make_response(request, 100, "Trying", {}));

    const auto build = [&](sip::Transport transport) { return request_to_core(request, rules, transport); };
    auto client = co_await core_.send_fitting(build, core_.next_hop());
    if (!client) {
        Answer refusal = no_answer(client.error(), true);
        co_return co_await answer(transaction, std::move(refusal), aim);
    }
    counters_.add(Counter::requests_from_ue);

    Relay leg;
    leg.transaction = transaction;
    leg.client = std::move(*client);
    leg.watch = watch;
    leg.edit = response_to_ue;
    leg.aim = aim;
    leg.again = [this, &build]() -> Task<std::unique_ptr<sip::ClientTransaction>> {  // the core's connection was stale
        auto second = co_await core_.send_fitting(build, core_.next_hop());
        co_return second ? std::move(*second) : nullptr;
    };
    leg.towards_core = true;
    co_await relay(std::move(leg));
}

}  // namespace gmgate::daemon
