#include "daemon/rules/call_rules.h"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "daemon/rules/auth_params.h"
#include "daemon/rules/from_ue_checks.h"
#include "daemon/rules/header_rules.h"
#include "daemon/rules/identity.h"
#include "sip/transaction/transactions.h"

namespace gmgate::daemon {

using sip::HeaderId;
using sip::Method;

const SipInterface* interface_of(const Config& config, std::string_view realm_id) {
    const auto at = std::ranges::find(config.sip_interfaces, realm_id, &SipInterface::realm_id);
    return at == config.sip_interfaces.end() ? nullptr : &*at;
}

bool needs_record_route(const sip::Message& request) {
    switch (request.method()) {
        case Method::invite:
        case Method::subscribe:
        case Method::refer:
        case Method::notify:
        case Method::update:
        case Method::other:
            return true;
        case Method::ack:
        case Method::bye:
        case Method::cancel:
        case Method::register_:
        case Method::options:
        case Method::prack:
        case Method::info:
        case Method::message:
        case Method::publish:
            return false;
    }
    return false;
}

std::string request_to_core(const sip::Message& request, const ToCore& rules, sip::Transport transport) {
    sip::Edit edit(request);
    (void)decrement_max_forwards(edit, request);
    mark_received(edit, request, rules.received);  // C-19
    push_via(edit, transport, rules.via_host, sip::Transactions::new_branch() + rules.answer_mark + rules.loop_mark);
    if (rules.route) {  // C-60
        if (!rules.route->empty())
            edit.insert_before(HeaderId::from, fmt::format("Route: {}", fmt::join(*rules.route, ", ")));
        edit.remove_all(HeaderId::route);
    } else {
        if (rules.own_routes) pop_routes(edit, request, *rules.own_routes);
        else pop_own_route(edit, request, rules.own_hosts);
    }
    // C-65: the Request-URI stays as it is.
    if (needs_record_route(request))  // C-63; the core meets its side first
        edit.insert_before(HeaderId::record_route, {"Record-Route: <", rules.core_uri, ">, <", rules.ue_uri, ">"});
    strip_untrusted(edit, request);                                                              // H-2, C-3, C-4
    strip_sec_agree(edit, request);                                                              // C-64
    write_credentials(edit, request, HeaderId::authorization, rules.credentials.authorization);  // C-17: no indicator
    write_credentials(edit, request, HeaderId::proxy_authorization, rules.credentials.proxy_authorization);
    if (rules.is_initial && request.method() != Method::ack) {
        assert_identity(edit, request, rules.registered);                       // C-61
        edit.append({"P-Charging-Vector: ", charging_vector(rules.orig_ioi)});  // C-63
    } else {
        edit.remove_all(HeaderId::p_preferred_identity);
    }
    return edit.to_string();
}

std::string request_to_ue(const sip::Message& request, const ToUe& rules) {
    sip::Edit edit(request);
    (void)decrement_max_forwards(edit, request);
    mark_received(edit, request, rules.received);
    push_via(edit, rules.transport, rules.via_host,
             sip::Transactions::new_branch() + rules.answer_mark + rules.loop_mark);
    pop_own_route(edit, request, rules.own_hosts);
    if (needs_record_route(request))  // the phone meets its side first
        edit.insert_before(HeaderId::record_route, {"Record-Route: <", rules.ue_uri, ">, <", rules.core_uri, ">"});
    strip_for_ue(edit, request);  // C-72
    return edit.to_string();
}

namespace {

void edit_response_to_ue(sip::Edit& edit, const sip::Message& response) {
    pop_via(edit, response);
    soften_503(edit, response);  // the phone would leave this gateway, and a part of the core is busy only
    strip_for_ue(edit, response);
}

}  // namespace

std::string response_to_ue(const sip::Message& response) {
    sip::Edit edit(response);
    edit_response_to_ue(edit, response);
    return edit.to_string();
}

std::string response_to_ue(const sip::Message& response, const MarkFor& mark) {
    sip::Edit edit(response);
    edit_response_to_ue(edit, response);
    mark.dialogs.mark_response(edit, response, mark.token, mark.owner, mark.own_hosts);
    return edit.to_string();
}

std::string response_to_core(const sip::Message& response, const ResponseToCore& rules) {
    sip::Edit edit(response);
    pop_via(edit, response);
    soften_503(edit, response);  // it would say that no phone behind this gateway can be served
    strip_untrusted(edit, response);
    if (rules.asserts && response.status() > 100 && response.status() < 300) {  // TS 24.229 §5.2.6.4.4
        assert_called_identity(edit, response, rules.called_party, rules.registered);
        if (const auto vector = charging_vector_back(rules.charging_vector, rules.term_ioi); !vector.empty())
            edit.append({"P-Charging-Vector: ", vector});
    } else edit.remove_all(HeaderId::p_preferred_identity);
    return edit.to_string();
}

}  // namespace gmgate::daemon
