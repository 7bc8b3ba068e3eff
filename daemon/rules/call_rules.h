// Requests and responses other than REGISTER as the other side gets them: pure functions (requirements C.9, C.10).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/types.h"
#include "daemon/config/config.h"
#include "daemon/rules/dialogs.h"
#include "daemon/rules/own_hosts.h"
#include "sip/message/credentials.h"
#include "sip/message/message.h"
#include "sip/transport/transport.h"

namespace gmgate::daemon {

struct ToCore {
    sip::Flow received;
    std::string via_host;
    std::string core_uri, ue_uri;  ///< our Record-Route pair, as the core and as the UE reach us
    std::string core_user;         ///< user part of core_uri; its host is that of the side which sends it
    std::string answer_mark;       ///< follows our branch (DialogMarks::answer_mark)
    std::string loop_mark;         ///< and this (OwnMarks)
    std::string orig_ioi;
    OwnHosts own_hosts;
    std::optional<std::size_t> own_routes;  ///< on top of Route, when that has been asked (split_route)
    sip::RequestCredentials credentials;    ///< as they were checked: these and no others reach the core
    std::vector<Impu> registered;           ///< to assert one of them (C-61)
    bool is_initial = false;  ///< outside a dialog, or in none that passed here: it is charged and somebody asserted
    std::optional<std::vector<std::string>>
        route;  ///< replaces the whole Route (C-60); nullopt: only our own are popped
};
/// A request from a phone as the core gets it: C-60…C-64, H-2, B-115. Max-Forwards must have been checked
/// (check_proxyable).
std::string request_to_core(const sip::Message& request, const ToCore& rules, sip::Transport transport);

struct ToUe {
    sip::Flow received;
    sip::Transport transport = sip::Transport::udp;
    std::string via_host;  ///< our protected server port
    std::string core_uri, ue_uri;
    std::string answer_mark, loop_mark;  ///< as in ToCore
    OwnHosts own_hosts;
};
/// A request from the core as the phone gets it: C-70, C-72. The Request-URI stays as it is.
std::string request_to_ue(const sip::Message& request, const ToUe& rules);

/// A response from the core as the phone gets it: our Via gone, C-3.
std::string response_to_ue(const sip::Message& response);

/// Whose dialogs a response marks (DialogMarks::mark_response).
struct MarkFor {
    const DialogMarks& dialogs;
    std::string token;
    ContactKey owner;
    const OwnHosts& own_hosts;
};
/// The same, and our Record-Route marked for the phone.
std::string response_to_ue(const sip::Message& response, const MarkFor& mark);

struct ResponseToCore {
    std::vector<Impu> registered;
    std::string called_party;       ///< P-Called-Party-ID of the request
    bool asserts = false;           ///< the request was outside a dialog
    std::string charging_vector{};  ///< P-Charging-Vector of the request
    std::string term_ioi{};         ///< ours, for P-Charging-Vector of the response
};
/// A response of a phone as the core gets it: our Via gone, nothing of the trust domain from the phone (H-2), the
/// callee asserted (C-72).
std::string response_to_core(const sip::Message& response, const ResponseToCore& rules);

/// The configured interface of a registration; nullptr when there is none of that name.
const SipInterface* interface_of(const Config& config, std::string_view realm_id);
/// True for methods that open or refresh a dialog: they carry Record-Route.
bool needs_record_route(const sip::Message& request);

}  // namespace gmgate::daemon
