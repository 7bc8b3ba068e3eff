// How the gateway is called in URIs: which hosts are its own, and the token URI of a registration on each side.
//
// Our Record-Route is a pair (RFC 5658 §4: double Record-Route), because the two sides reach us at different places:
// the UE at its protected server port (C-63), the core at the core-side address. Nothing has to be rewritten in
// responses then.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/config/config.h"
#include "daemon/registrations/registration.h"
#include "daemon/rules/own_hosts.h"
#include "sip/message/headers.h"
#include "sip/message/message.h"

namespace gmgate::daemon {

/// Every host:port under which a Route may name us: the configured host names, the access addresses with their
/// unprotected and protected ports, and the core side's address. For `pop_own_route` and `RegisterToCore::own_hosts`.
OwnHosts own_hosts(const Config& config);

/// "sip:TOKEN@host:port;lr": what Path says, and Record-Route.
std::string token_uri(std::string_view token, std::string_view host_and_port);
/// host:port with ;transport= unless it is UDP: a phone that takes our URI from Record-Route would send the next
/// request by UDP, in clear to a TLS port, otherwise.
std::string reached_over(std::string host_and_port, sip::Transport transport);
/// host:port of our URI as a UE reaches it at `ours` (Registration::reached_at): the interface's `host`, else the
/// address, and the port; with ;transport= for a UE that registered over TCP or TLS (RFC 5658 §4: each of the pair
/// tells the transport of its side).
std::string ue_uri_host(const Config& config, std::string_view realm_id, const Endpoint& ours,
                        sip::Transport transport);

/// A name-addr that names us, as a URI; views into the message.
std::optional<sip::Uri> own_uri(std::string_view element, const OwnHosts& own_hosts);
/// The token in the user part of a URI of ours: what stands before the first "." (marks follow, dialogs.h).
inline std::string_view token_in(std::string_view user) { return user.substr(0, user.find('.')); }

/// The Route of a request in two parts; views into the request.
struct OwnRoute {
    std::string_view user;               ///< of the first URI of ours on top that has one
    std::size_t ours = 0;                ///< how many values on top are ours (count_own_routes)
    std::vector<std::string_view> rest;  ///< the values behind those
};
OwnRoute split_route(const sip::Message& request, const OwnHosts& own_hosts);

/// The user part of the first URI of ours that carries one, among the Route values on top, else in the Request-URI
/// (C-70); a view into the request. nullopt when neither names us. Empty: the request is for the gateway itself.
std::optional<std::string_view> own_user_of(const sip::Message& request, const OwnHosts& own_hosts);
/// The token in it.
std::optional<std::string> token_of(const sip::Message& request, const OwnHosts& own_hosts);
/// True when the Request-URI is a host and port of ours without a user part, and no Route leads on: the gateway itself
/// is asked.
bool asks_gateway(const sip::Message& request, const OwnRoute& route, const OwnHosts& own_hosts);
/// The caller's token in our Record-Route of a response (a retransmitted 2xx whose transaction is gone).
std::optional<std::string> token_in_record_route(const sip::Message& response, const OwnHosts& own_hosts);
/// Whether one of our URIs in the Record-Route of a response carries that token.
bool record_route_has(const sip::Message& response, std::string_view token, const OwnHosts& own_hosts);

}  // namespace gmgate::daemon
