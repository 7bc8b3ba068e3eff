// What the gateway changes in a message on its way: pure functions from one message to another (TS 24.229 §5.2,
// requirements C).
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/rules/own_hosts.h"
#include "sip/message/credentials.h"
#include "sip/message/edit.h"
#include "sip/message/headers.h"
#include "sip/message/message.h"
#include "sip/transport/transport.h"

namespace gmgate::daemon {

// ---- building blocks, shared by REGISTER and everything else

/// Adds received= (and fills rport=) in the topmost Via of a request (RFC 3261 §18.2.1, RFC 3581, C-19).
void mark_received(sip::Edit& edit, const sip::Message& request, const sip::Flow& flow);
/// A 503 becomes 500 where it goes on to somebody who would take it for ours and stop asking us (RFC 3261 §16.7 step
/// 6). Its Retry-After stays: it may stand in a 500, too (§21.5.1).
void soften_503(sip::Edit& edit, const sip::Message& response);
/// Our Via on top.
void push_via(sip::Edit& edit, sip::Transport transport, std::string_view via_host, std::string_view branch);
/// Takes the topmost Via value away (ours), also out of a comma list.
void pop_via(sip::Edit& edit, const sip::Message& response);
/// Whether it may be forwarded at all: Max-Forwards is absent, or a number above 0.
bool has_hops_left(const sip::Message& request);
/// Max-Forwards: decremented, or 70 added. False when it is 0 or no number (answer 483).
bool decrement_max_forwards(sip::Edit& edit, const sip::Message& request);
/// How many Route values on top are our own for this passage: host and port match one of `own_hosts` and all
/// carry one user part, none twice. Usually the pair that we recorded (own_names.h); a pair with another one behind it
/// is the callee's, and stays.
std::size_t count_own_routes(const std::vector<std::string_view>& routes, const OwnHosts& own_hosts);
/// Takes those Route values away; returns the URI text of the first of them.
std::optional<std::string> pop_own_route(sip::Edit& edit, const sip::Message& request, const OwnHosts& own_hosts);
/// The same for who has counted them.
std::optional<std::string> pop_routes(sip::Edit& edit, const sip::Message& request, std::size_t count);
/// What a UE must not tell the core (C-3, C-4, C-15, H-2): P-Charging-*, P-Visited-Network-ID, P-Asserted-*,
/// P-Served-User, Path, Security-Server, … For requests and responses alike.
void strip_untrusted(sip::Edit& edit, const sip::Message& message);
/// The same for header fields as text, whole, each with its line end: what a phone's CANCEL carries on.
std::string without_untrusted(std::string_view fields);
/// What the core must not tell the UE (C-3): P-Charging-*, P-Visited-Network-ID…; P-Asserted-Identity where Privacy
/// asks for it (RFC 3325 §7), and P-Access-Network-Info of the other end.
void strip_for_ue(sip::Edit& edit, const sip::Message& message);
/// RFC 3325 §9.3: Privacy has `id`, so that nobody outside of the trust domain may see P-Asserted-Identity; not with
/// `none`, which excludes the others (RFC 3323 §4.2). The other values (header, session, user, history) are the privacy
/// service's and pass untouched: TS 24.229 §5.2.6 gives a P-CSCF no part in them. Values are separated by ";"; senders
/// that write "," mean the same, and what they want hidden stays hidden.
bool asks_for_id_privacy(const sip::Message& message);
/// Security-Client, Security-Verify and the option tags sec-agree and mediasec (A-18, C-16, G-30).
void strip_sec_agree(sip::Edit& edit, const sip::Message& request);
/// Value of P-Charging-Vector for a phone's response (TS 24.229 §5.2.6.4.4): icid-value, icid-generated-at and orig-ioi
/// of the request's value `of_request`, and term-ioi, type 1: this network. Empty when the request had no icid-value.
std::string charging_vector_back(std::string_view of_request, std::string_view term_ioi);
/// Value of P-Charging-Vector with a fresh icid-value and orig-ioi (C-13): `icid-value="…";orig-ioi=…`.
std::string charging_vector(std::string_view orig_ioi);

/// All values of a comma-separated header over all its fields, in order, as written.
std::vector<std::string_view> values_of(const sip::Message& message, sip::HeaderId id);
/// Keeps the values of a comma list for which `keep` holds; a field without values left is removed, an untouched one
/// keeps its bytes.
void keep_values(sip::Edit& edit, const sip::Message& message, sip::HeaderId id,
                 const std::function<bool(std::string_view)>& keep);
/// Takes option tags out of Require or Proxy-Require and merges one in (`add`, may be empty), in one pass over the
/// fields.
void rewrite_option_tags(sip::Edit& edit, const sip::Message& message, sip::HeaderId id, bool without_sec_agree,
                         std::string_view add = {});
/// `text` as a gen-value: itself when it is a token (or host), else a quoted-string.
std::string token_or_quoted(std::string_view text);

// ---- REGISTER (C.2, C.3, C.5)

struct RegisterToCore {
    sip::Flow received;                              ///< where it came from
    sip::Transport transport = sip::Transport::udp;  ///< towards the core
    std::string via_host;
    std::string branch;
    std::string path_uri;  ///< "sip:TOKEN@host:port;lr"
    std::string visited_network_id;
    std::string orig_ioi;
    sip::RequestCredentials credentials;                  ///< as they were checked: these and no others reach the core
    std::optional<std::string_view> integrity_protected;  ///< value by table C.3; nullopt: absent
    bool bare_integrity_protected = false;
};
/// The REGISTER as the core gets it; nullopt when Max-Forwards is used up (483).
std::optional<std::string> register_to_core(const sip::Message& request, const RegisterToCore& rules);

/// A response to REGISTER as the UE gets it: our Via gone, ck and ik taken out of every challenge in any spelling
/// (C-31, C-36), P-Charging-* gone, Security-Server added when given.
std::string register_response_to_ue(const sip::Message& response, const std::optional<std::string>& security_server);

}  // namespace gmgate::daemon
