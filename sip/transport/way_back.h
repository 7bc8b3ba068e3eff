// Where an answer goes that nobody protects (RFC 3261 §18.2.2, RFC 3581 §4).
#pragma once

#include "sip/message/headers.h"
#include "sip/transport/transport.h"

namespace gmgate::sip {

/// Where a peer listens that names no port (RFC 3261 §19.1.2).
inline Port default_port(Transport transport) {
    return Port{transport == Transport::tls ? std::uint16_t{5061} : std::uint16_t{5060}};
}

/// The way back of a request in clear with that topmost Via: its connection; over UDP the address that it came from, at
/// the port that Via names (5060 when it names none), or at the source port when the client asks for it by `rport`.
inline Flow answer_way(const Flow& came, const Via& via) {
    Flow way = came;
    if (came.transport != Transport::udp || via.parameter("rport")) return way;
    way.remote.port = via.port.value != 0 ? via.port : Port{5060};
    return way;
}

}  // namespace gmgate::sip
