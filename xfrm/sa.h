// The four SAs of a registration and the guard policies of an access address, as values: no I/O, no netlink.
#pragma once

#include <array>
#include <chrono>
#include <optional>
#include <vector>

#include "base/algorithms.h"
#include "base/endpoint.h"
#include "base/types.h"
#include "xfrm/ims_keys.h"

namespace gmgate::xfrm {

enum class Direction { in, out };

/// The kernel's key of an ESP SA: destination address and SPI.
struct SaId {
    Address destination;
    Spi spi;
    friend auto operator<=>(const SaId&, const SaId&) = default;
};

/// One unidirectional transport-mode ESP SA. Its selector is (source, destination, protocol any): the protected
/// four-tuple, so that the kernel tells the SAs of one address apart by ports (B-12, B-18).
struct Sa {
    SaId id;
    Direction direction{};
    Endpoint source;
    Endpoint destination;
};

/// What one agreement negotiated, in the specification's names (TS 33.203 §7.1).
struct SetParameters {
    Address ue;
    Address gateway;
    Port port_uc, port_us;  ///< the UE's protected client and server port
    Port port_pc, port_ps;  ///< the gateway's
    Spi spi_uc, spi_us;     ///< chosen by the UE: outbound SAs of the gateway
    Spi spi_pc, spi_ps;     ///< chosen by the gateway: inbound SAs
    AlgorithmPair algorithms;
    friend bool operator==(const SetParameters&, const SetParameters&) = default;
};

/// Table of B-18: [0] SA1 in port_uc→port_ps spi_ps, [1] SA2 out port_pc→port_us spi_us, [2] SA3 in port_us→port_pc
/// spi_pc, [3] SA4 out port_ps→port_uc spi_uc.
std::array<Sa, 4> four_sas(const SetParameters& parameters);

/// Everything that the kernel needs to install a set. Move-only because of the keys.
struct SetRequest {
    SetParameters parameters;
    EspKeys keys;
    /// Set by both inbound SAs (XFRMA_SET_MARK), so that a socket reports which set carried a message. Not 0, inside of
    /// the configured mask, unique among live sets: all four SAs also carry it as their `seq`, so that a dump tells
    /// whose they are.
    Mark mark;
    std::chrono::seconds lifetime;  ///< hard limit of all four SAs: a safety net beyond the SIP lifetime (B-10)
};

/// Protected ports of one access address that must neither accept nor send anything without ESP (B-13).
struct GuardRequest {
    Address gateway;
    std::vector<Port> ports;  ///< protected server and client ports
};

/// One wildcard policy: (any, gateway:port) in, (gateway:port, any) out, protocol any, template ESP transport with our
/// reqid. Out guards carry XFRM_POLICY_ICMP, so that an ICMP error about a protected datagram is protected too.
struct GuardPolicy {
    Direction direction{};
    Endpoint gateway;
    friend auto operator<=>(const GuardPolicy&, const GuardPolicy&) = default;
};
std::vector<GuardPolicy> guard_policies(const GuardRequest& request);

/// What a dump tells of one of our SAs (never its keys).
struct SaReport {
    Sa sa;
    Mark mark;  ///< of the set, on all four
    AlgorithmPair algorithms;
    std::uint64_t packets = 0, bytes = 0;
    std::uint32_t replay_window_drops = 0, replay_drops = 0, integrity_failures = 0;
    std::chrono::system_clock::time_point added;
    std::chrono::seconds hard_lifetime{0};
};

}  // namespace gmgate::xfrm
