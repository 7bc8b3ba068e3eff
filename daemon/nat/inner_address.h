// Which address a phone behind NAT may have inside its tunnel, beside its public one.
#pragma once

#include <optional>

#include "base/endpoint.h"
#include "sip/message/message.h"

namespace gmgate::daemon {

/// RFC 1918, RFC 6598 (shared address space), RFC 4193 (unique local).
bool is_private(const Address& address);

/// The private address that the topmost Via of an unprotected REGISTER names: a phone that puts its own address into
/// the tunnel has it there, and in no other way does anybody learn it before the first protected packet. nullopt: a
/// name, another family than `seen` (the address it came from), or no private address.
std::optional<Address> inner_address_of(const sip::Message& request, const Address& seen);

}  // namespace gmgate::daemon
