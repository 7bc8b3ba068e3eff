// STUN on a SIP port: just what RFC 5626 §4.4.2 keep-alives need of RFC 5389. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/endpoint.h"

namespace gmgate::sip {

/// True for a datagram with STUN's zero bits, magic cookie and a length that fits (RFC 5389 §6): no SIP message begins
/// like that.
bool is_stun(std::string_view datagram);

/// The answer to a binding request: XOR-MAPPED-ADDRESS with `source` as the server saw it, or error 420 when the
/// request has attributes that must be understood and are not. nullopt for anything that wants no answer (responses,
/// indications, broken TLVs).
std::optional<std::string> answer_stun(std::string_view datagram, const Endpoint& source);

}  // namespace gmgate::sip
