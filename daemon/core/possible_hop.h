// What no name server may make the next hop: this gateway itself, this machine, and addresses that are nobody's.
#pragma once

#include "base/endpoint.h"

namespace gmgate::sip {
class Transports;
}

namespace gmgate::daemon {

struct Core;

/// Whether an answer of DNS can be an element of the core. Not: unspecified, multicast and broadcast addresses, port 0;
/// the loopback, unless the gateway's own side of the core is there, too; [core] listen itself; and whatever port of
/// an address at which the gateway hears somebody else than the core. Another port of [core] listen's address may be.
bool may_be_core(const Core& core, const sip::Transports& transports, const Endpoint& answer);

}  // namespace gmgate::daemon
