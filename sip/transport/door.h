// Through which door a message comes or goes: our socket and who is on its other side. What belongs to one
// transaction passes through one door.
#pragma once

#include <functional>

#include "sip/transport/transport.h"

namespace gmgate::sip {

/// Who holds the far end, where that is known for certain: a phone whose set of SAs or TLS connection it is, or the
/// core. Given out by the gateway; 0 = nobody known, anybody who can send from that address.
using OwnerId = Distinct<std::uint64_t, struct OwnerIdTag>;

/// Two flows with equal doors may carry the same transaction (RFC 3261 §17.1.3 and §17.2.3 go by the Via alone, which
/// the far end of a call sees). A known owner may use several flows: port_pc → port_us one way and port_uc → port_ps
/// back (TS 33.203 §7.1), the set before and after a re-registration, a new connection; what must be equal of those
/// is left as it is in the door, the rest is zero.
struct Door {
    OwnerId owner{};
    Transport transport = Transport::udp;
    Endpoint local{};
    Address remote{};
    friend bool operator==(const Door&, const Door&) = default;
};

/// The door of a flow whose owner is not known: our socket, the transport, and the other end's address. Not its port:
/// a peer may answer from another one than it listens at.
inline Door door_of_ends(const Flow& flow) {
    return {.owner = {}, .transport = flow.transport, .local = flow.local, .remote = flow.remote.address};
}

/// Which way a flow is used: a datagram that came over SAs has their mark, one that leaves takes the SAs of its two
/// ends.
enum class Direction : std::uint8_t { in, out };

/// Tells the door of a flow. Must give the same one for a transaction's whole life, whichever of its owner's flows is
/// asked about.
using DoorFinder = std::function<Door(const Flow&, Direction)>;

}  // namespace gmgate::sip

template <>
struct std::hash<gmgate::sip::Door> {
    std::size_t operator()(const gmgate::sip::Door& door) const noexcept {
        const std::size_t ends =
            std::hash<gmgate::Endpoint>{}(door.local) * 31 + std::hash<gmgate::Address>{}(door.remote);
        return ends * 31 + door.owner.value * 4 + static_cast<std::size_t>(door.transport);
    }
};
