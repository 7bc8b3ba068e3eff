// What the gateway changes in a message on its way: pure functions from one message to another (TS 24.229 §5.2, requirements C).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sip/edit.h"
#include "sip/message.h"
#include "sip/transport.h"

namespace gmgate::daemon {

/// The gateway's own names in headers, built once per leg.
struct OwnNames {
    std::string via_host;    ///< "192.0.2.1:5060" or "[2001:db8::1]:5060": sent-by
    std::string uri_host;    ///< host[:port] of our URI in Path, Record-Route
};

/// Facts about the received request that header rules need.
struct Received {
    sip::Flow flow;
};

// ---- building blocks, shared by REGISTER and everything else

/// Adds received= (and fills rport=) in the topmost Via of a request (RFC 3261 §18.2.1, RFC 3581, C-19).
void mark_received(sip::Edit& edit, const sip::Message& request, const sip::Flow& flow);
/// Our Via on top.
void push_via(sip::Edit& edit, sip::Transport transport, std::string_view via_host, std::string_view branch);
/// Takes the topmost Via value away (ours), also out of a comma list.
void pop_via(sip::Edit& edit, const sip::Message& response);
/// Max-Forwards: decremented, or 70 added. False when it is 0 (answer 483).
bool decrement_max_forwards(sip::Edit& edit, const sip::Message& request);
/// Takes the topmost Route value away when it is our own (host and port match one of `own_hosts`); returns its URI text.
std::optional<std::string> pop_own_route(sip::Edit& edit, const sip::Message& request, const std::vector<std::string>& own_hosts);
/// What a UE must not tell the core (C-3, C-4, C-15, H-2): P-Charging-*, P-Visited-Network-ID, P-Asserted-*, P-Served-User, Path, …
void strip_untrusted(sip::Edit& edit, const sip::Message& request);
/// What the core must not tell the UE (C-3): P-Charging-*, P-Visited-Network-ID….
void strip_for_ue(sip::Edit& edit, const sip::Message& message);
/// Security-Client, Security-Verify and the option tags sec-agree and mediasec (A-18, C-16, G-30).
void strip_sec_agree(sip::Edit& edit, const sip::Message& request);
/// P-Charging-Vector with a fresh icid-value and orig-ioi (C-13).
std::string charging_vector(std::string_view orig_ioi);

// ---- REGISTER (C.2, C.3, C.5)

struct RegisterToCore {
    sip::Flow received;                                 ///< where it came from
    sip::Transport transport = sip::Transport::udp;     ///< towards the core
    std::string via_host;
    std::string branch;
    std::string path_uri;                               ///< "sip:TOKEN@host:port;lr"
    std::string visited_network_id;
    std::string orig_ioi;
    std::vector<std::string> own_hosts;                 ///< to recognise our own Route
    std::optional<std::string_view> integrity_protected;///< value by table C.3; nullopt: absent
    bool bare_integrity_protected = false;
};
/// The REGISTER as the core gets it; nullopt when Max-Forwards is used up (483).
std::optional<std::string> register_to_core(const sip::Message& request, const RegisterToCore& rules);

/// A response to REGISTER as the UE gets it: our Via gone, ck and ik taken out of every challenge in any spelling (C-31, C-36),
/// P-Charging-* gone, Security-Server added when given.
std::string register_response_to_ue(const sip::Message& response, const std::optional<std::string>& security_server);

}  // namespace gmgate::daemon
