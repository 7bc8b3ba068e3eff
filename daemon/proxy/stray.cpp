// What belongs to no transaction: ACK to a 2xx, and a 2xx that comes again when its INVITE is forgotten. Forwarded
// without state.
#include "base/log.h"
#include "daemon/proxy/router.h"
#include "daemon/rules/call_rules.h"
#include "daemon/rules/header_rules.h"
#include "daemon/rules/own_names.h"
#include "daemon/rules/request_syntax.h"
#include "sip/transport/way_back.h"

namespace gmgate::daemon {

using sip::HeaderId;

namespace {

/// Only a 2xx to INVITE may be retransmitted after its transaction has ended (RFC 3261 §13.3.1.4); and it must be about
/// a request that carried our Via.
bool is_late_2xx(const sip::Message& response, const OwnHosts& own_hosts) {
    if (response.method() != sip::Method::invite || response.status() < 200 || response.status() >= 300) return false;
    const auto via = sip::top_via(response);
    if (!via) return false;
    const std::string as_uri =
        "sip:" + std::string(via->host) + ":" + std::to_string(via->port.value != 0 ? via->port.value : 5060);
    const auto uri = sip::Uri::parse(as_uri);
    return uri && own_hosts.contain(*uri);
}

sip::Transport transport_of(const sip::Via& via) {
    if (sip::same_token(via.transport, "TLS")) return sip::Transport::tls;
    return sip::same_token(via.transport, "TCP") ? sip::Transport::tcp : sip::Transport::udp;
}

/// Where that Via, as we passed it on, asks for its answer (RFC 3261 §18.2.2, RFC 3581 §4).
std::optional<Endpoint> answer_place(const sip::Via& via, sip::Transport transport) {
    const auto received = via.parameter("received");
    const auto address = Address::parse(received ? *received : via.host);
    if (!address) return std::nullopt;
    Port port = via.port.value != 0 ? via.port : sip::default_port(transport);
    if (const auto rport = via.parameter("rport"); rport && !rport->empty() && !sip::is_reliable(transport)) {
        const auto asked = Endpoint::parse(address->to_uri_host() + ":" + std::string(*rport));
        if (!asked) return std::nullopt;
        port = asked->port;
    }
    return Endpoint{*address, port};
}

}  // namespace

void Router::drop_stray(const sip::Message& message, const sip::Flow& flow, std::string_view why) {
    counters_.add(Counter::stray_wrong_door);
    log::debug("stray-wrong-door",
               {{"what", message.is_request() ? message.method_name() : std::string_view("response")},
                {"from", flow.remote.to_string()},
                {"to", flow.local.to_string()},
                {"why", why}});
}

Task<void> Router::handle_stray(sip::OwnedMessage message, sip::Flow flow) {
    const bool from_core = core_.is_core_side(flow);
    const bool is_ack = message->is_request() && message->method() == sip::Method::ack;
    if (is_ack && check_proxyable(*message, false, from_core ? Sender::core : Sender::phone))
        co_return;  // Max-Forwards used up: nobody is answered
    if (from_core) {
        if (is_ack) co_await stray_ack_from_core(std::move(message), flow);
        else if (!core_.is_core_address(flow.remote.address))
            drop_stray(*message, flow, "a response from an address that is none of the core's");
        else co_await stray_response_from_core(std::move(message), flow);
        co_return;
    }
    const FlowOwner owner = table_.owner_of(flow);
    const bool is_unowned = owner.registration == nullptr && owner.set == nullptr;
    if (is_unowned && is_ack) revive_from_phone(*message, flow);
    if (is_unowned ? emergency_.covers(*message) : emergency_.permits_on(*message, flow))
        co_return co_await stray_emergency(std::move(message), flow);
    if (owner.registration == nullptr) {  // B-23, C-45; an ACK or a response on an unprotected port (G-9)
        counters_.add(Counter::wrong_sa);
        co_return;
    }
    const std::string token = owner.registration->token;
    if (is_ack) {
        const auto named = token_of(*message, own_hosts_);
        const Registration* other = named ? table_.find_by_token(*named) : nullptr;
        if (other != nullptr && other->phone != owner.registration->phone)
            co_return drop_stray(*message, flow, "an ACK in the dialog of another phone");
        co_return co_await stray_ack_from_ue(std::move(message), token);
    }
    // The 2xx shows for whom our Record-Route was (RFC 3261 §12.1.1): nobody answers for another phone.
    if (!record_route_has(*message, token, own_hosts_))
        co_return drop_stray(*message, flow, "a response whose Record-Route is not that phone's");
    if (!dialogs_.is_own_answer(Leg::to_phone, contact_text(owner.registration->key), *message))
        co_return drop_stray(*message, flow, "a response whose Via is none that we gave that phone");
    co_await stray_response_from_ue(std::move(message), flow);
}

Task<void> Router::stray_ack_from_ue(sip::OwnedMessage ack, std::string token) {
    ToCore rules;
    rules.credentials = sip::RequestCredentials::read(*ack);
    if (check_unambiguous(*ack, rules.credentials)) co_return;  // nobody answers an ACK
    rules.own_hosts = own_hosts_;
    if (const auto via = sip::top_via(*ack)) {  // leave the phone's Via as it is: an ACK gets no response
        rules.received.remote.address = via->sent_by_address().value_or(Address{});
    }
    const OwnRoute route = split_route(*ack, own_hosts_);
    const Registration* registration = table_.find_by_token(token);
    if (registration != nullptr && !dialogs_.knows_from_ue(registration->key, *ack, route)) {  // as in from_ue.cpp
        note_unknown_dialog(*ack, *registration);
        if (is_emergency_contact(registration->key)) co_return;
        rules.route = registration->service_route.value();
    }
    const std::string top_route = rules.route ? first_route_uri(*rules.route)
                                              : first_route_uri(route.rest);  // the way of the dialog's other requests
    const std::vector<std::string> service_route =
        registration != nullptr ? registration->all_routes() : std::vector<std::string>{};
    Result<std::vector<Target>> targets = co_await core_.targets_for(top_route, service_route);
    CoreAttempts::Build build = [&](sip::Transport transport, const CoreSide& side) {
        return request_to_core(*ack, named(rules, side), transport);
    };
    Result<void> sent = failure(Reaction::broken, {});
    if (targets) sent = co_await core_.send_stateless(std::move(build), std::move(*targets), Traffic::phones);
    else sent = std::unexpected(targets.error());
    if (!sent) log::info("proxy-stray-not-sent", {{"what", "ACK"}, {"token", token}, {"reason", sent.error().text}});
}

Task<void> Router::stray_ack_from_core(sip::OwnedMessage ack, sip::Flow flow) {
    const auto user = own_user_of(*ack, own_hosts_);
    if (!user) co_return;
    const std::optional<std::string> token{token_in(*user)};
    ToUe rules;
    rules.received = flow;
    rules.own_hosts = own_hosts_;
    if (is_for_emergency_call(*ack, *user)) {
        const EmergencyDialog* dialog = emergency_.find_by_token(*token);
        rules.transport = dialog->ue.transport;
        rules.via_host = dialog->ue.local.to_string();
        (void)transactions_.send_stateless(request_to_ue(*ack, rules), dialog->ue);
        co_return;
    }
    const Result<UePath> path = co_await path_to_ue(*token, ack->bytes().size());
    if (!path) {
        counters_.add(Counter::no_set);
        co_return;
    }
    rules.transport = path->flow.transport;
    rules.via_host = path->via_host;
    (void)transactions_.send_stateless(request_to_ue(*ack, rules), path->flow);
}

Task<void> Router::stray_response_from_ue(sip::OwnedMessage response, sip::Flow flow) {
    // A phone must not use us to send what it likes to where it likes: only an answer to what we forwarded, only to the
    // core.
    if (!is_late_2xx(*response, own_hosts_)) co_return;
    const std::vector<std::string_view> vias = values_of(*response, HeaderId::via);
    const auto next = vias.size() > 1 ? sip::Via::parse(vias[1]) : std::nullopt;
    if (!next) co_return;
    const sip::Transport transport = transport_of(*next);
    const auto to = answer_place(*next, transport);
    if (!to) co_return;
    if (!core_.takes_answers(transport, *to))
        co_return drop_stray(*response, flow, "a response whose Via names no place of the core");
    ResponseToCore rules;
    (void)co_await core_.send_stateless(response_to_core(*response, rules), transport, *to);
}

Task<void> Router::stray_response_from_core(sip::OwnedMessage response, sip::Flow flow) {
    if (!is_late_2xx(*response, own_hosts_)) {
        response.wipe();  // a late 401 carries keys
        co_return;
    }
    const std::optional<std::string> token = token_in_record_route(*response, own_hosts_);
    if (!token) co_return;
    const EmergencyDialog* dialog = emergency_.find_by_token(*token);
    const Registration* asker = table_.find_by_token(*token);
    if (dialog == nullptr && asker == nullptr) co_return;
    if (!dialogs_.is_own_answer(Leg::to_core, dialog != nullptr ? *token : contact_text(asker->key), *response))
        co_return drop_stray(*response, flow, "a response whose Via is none that we gave the core");
    if (dialog != nullptr) {
        (void)transactions_.send_stateless(emergency_response(*token, *response), dialog->ue);
        co_return;
    }
    const Result<UePath> path = co_await path_to_ue(*token, response->bytes().size());
    const Registration* registration = table_.find_by_token(*token);
    if (!path || registration == nullptr) co_return;
    const MarkFor mark{dialogs_, *token, registration->key, own_hosts_};
    (void)transactions_.send_stateless(response_to_ue(*response, mark), path->flow);
}

}  // namespace gmgate::daemon
