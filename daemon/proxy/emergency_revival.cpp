// Emergency calls in clear that began in the process before, or gave way in this one: a request inside such a dialog
// brings back in its Route what we wrote into the Record-Route of the call, and with it the call is known again.
#include "base/log.h"
#include "daemon/proxy/emergency_marks.h"
#include "daemon/proxy/router.h"
#include "daemon/rules/call_rules.h"
#include "daemon/rules/own_names.h"
#include "sip/message/headers.h"

namespace gmgate::daemon {

using sip::HeaderId;

namespace {

void note(const sip::Message& request, const sip::Flow& ue) {
    log::notice("emergency-known-again", {{"method", request.method_name()},
                                          {"peer", ue.remote.to_string()},
                                          {"call-id", request.value(HeaderId::call_id)}});
}

}  // namespace

// The mark binds the way that the call came (so the source address, too), Call-ID, both tags, the other end's Contact
// and the route set behind us: what then passes is what the table would have let pass, along the route that it had.
void Router::revive_from_phone(const sip::Message& request, const sip::Flow& flow) {
    const std::string_view to_tag = sip::tag_of(request, HeaderId::to);
    if (to_tag.empty() || !is_call_method(request.method())) return;
    const OwnRoute route = split_route(request, own_hosts_);
    const std::string token(token_in(route.user));
    const auto way = way_in_token(token);
    if (!way || way->remote.address != flow.remote.address) return;
    const std::string_view ue_tag = sip::tag_of(request, HeaderId::from);
    if (!dialogs_.knows_from_ue(emergency_owner(token, ue_tag, request.request_uri()), request, route)) return;
    EmergencyDialog dialog;
    dialog.token = token;
    dialog.call_id = std::string(request.value(HeaderId::call_id));
    dialog.ue_tag = std::string(ue_tag);
    dialog.ue = sip::is_reliable(flow.transport) ? flow : *way;
    dialog.legs.push_back({std::string(to_tag), {}, {std::string(request.request_uri())}});
    for (const std::string_view element : route.rest) dialog.legs.front().route.emplace_back(element);
    if (emergency_.revive(std::move(dialog))) note(request, flow);
}

bool Router::is_for_emergency_call(const sip::Message& request, std::string_view user) {
    const std::string token(token_in(user));
    if (emergency_.find_by_token(token) != nullptr) return true;
    const std::string_view ue_tag = sip::tag_of(request, HeaderId::to);
    const auto way = way_in_token(token);
    if (!way || !dialogs_.knows_from_core(emergency_owner(token, ue_tag, {}), request, user)) return false;
    EmergencyDialog dialog;
    dialog.token = token;
    dialog.call_id = std::string(request.value(HeaderId::call_id));
    dialog.ue_tag = std::string(ue_tag);
    dialog.ue = *way;
    if (sip::is_reliable(way->transport))  // handed over, or gone: then the phone cannot be reached until it speaks
        if (const auto connection = transports_.find_connection(way->local, way->remote)) dialog.ue = *connection;
    dialog.legs.push_back({std::string(sip::tag_of(request, HeaderId::from)), {}, {}});
    const sip::Flow ue = dialog.ue;
    if (emergency_.revive(std::move(dialog))) note(request, ue);
    return emergency_.find_by_token(token) != nullptr;
}

std::string Router::emergency_response(const std::string& token, const sip::Message& response) const {
    const auto contact = sip::NameAddr::parse(response.value(HeaderId::contact));
    const MarkFor mark{
        dialogs_, token,
        emergency_owner(token, sip::tag_of(response, HeaderId::from), contact ? contact->uri : std::string_view()),
        own_hosts_};
    return response_to_ue(response, mark);
}

}  // namespace gmgate::daemon
