// The four SAs of a registration and the guard policies of an access address, as values: no I/O, no netlink.
#pragma once

#include <array>
#include <chrono>
#include <optional>
#include <tuple>
#include <vector>

#include "base/algorithms.h"
#include "base/endpoint.h"
#include "base/types.h"
#include "xfrm/ims_keys.h"

namespace gmgate::xfrm {

enum class Direction { in, out };

/// How a set's packets travel (`mod` of Security-Server): ESP in transport mode, or in tunnel mode inside UDP through a
/// NAT (TS 33.203 Annex M).
enum class Mode : std::uint8_t { transport, udp_enc_tun };

/// RFC 3948: the UDP port of both ends in mode udp_enc_tun, unless a NAT gives the UE another one.
inline constexpr Port kEncapsulationPort{4500};

/// UDP ports of the datagrams around an SA's packets.
struct Encapsulation {
    Port source;
    Port destination;
    friend bool operator==(const Encapsulation&, const Encapsulation&) = default;
};

/// The kernel's key of an ESP SA: destination address and SPI.
struct SaId {
    Address destination;
    Spi spi;
    friend auto operator<=>(const SaId&, const SaId&) = default;
};

/// One unidirectional ESP SA. Its selector is (source, destination, protocol any): the protected four-tuple, so that
/// the kernel tells the SAs of one address apart by ports (B-12, B-18).
struct Sa {
    SaId id;
    Direction direction{};
    Endpoint source;
    Endpoint destination;
    /// Tunnel mode inside UDP. The outer addresses are those of the selector: inside, the UE has its public address
    /// (Annex M, B-82). Absent: transport mode.
    std::optional<Encapsulation> encapsulation{};
    /// With an encapsulation: the selector names the UE's port and no address of it, for inside it may have another
    /// than outside (SetParameters::inner).
    bool has_any_inner = false;
};

/// Whether the kernel tells of the SA that is meant: same selector and mode. (Ids are compared by whoever asks; the
/// ports of an encapsulation change in a life.)
bool is_same(const Sa& told, const Sa& meant);

/// What one agreement negotiated, in the specification's names (TS 33.203 §7.1).
struct SetParameters {
    Address ue;
    Address gateway;
    Port port_uc, port_us;  ///< the UE's protected client and server port
    Port port_pc, port_ps;  ///< the gateway's
    Spi spi_uc, spi_us;     ///< chosen by the UE: outbound SAs of the gateway
    Spi spi_pc, spi_ps;     ///< chosen by the gateway: inbound SAs
    AlgorithmPair algorithms;
    Mode mode = Mode::transport;  ///< udp_enc_tun: `ue` is the UE's public address, that of its NAT
    /// udp_enc_tun: the private address that the UE may have inside in place of `ue`. Absent: it has `ue`, as Annex M
    /// wants.
    std::optional<Address> inner{};
    friend bool operator==(const SetParameters&, const SetParameters&) = default;
};

/// Table of B-18: [0] SA1 in port_uc→port_ps spi_ps, [1] SA2 out port_pc→port_us spi_us, [2] SA3 in port_us→port_pc
/// spi_pc, [3] SA4 out port_ps→port_uc spi_uc. `port_uenc`: where the UE's NAT has its port 4500, as far as is known;
/// of no meaning in transport mode.
std::array<Sa, 4> four_sas(const SetParameters& parameters, Port port_uenc = kEncapsulationPort);

/// Everything that the kernel needs to install a set. Move-only because of the keys.
struct SetRequest {
    SetParameters parameters;
    EspKeys keys;
    /// Set by both inbound SAs (XFRMA_SET_MARK), so that a socket reports which set carried a message. Not 0, inside of
    /// the configured mask, unique among live sets: all four SAs also carry it as their `seq`, so that a dump tells
    /// whose they are.
    Mark mark;
    std::chrono::seconds lifetime;        ///< hard limit of all four SAs: a safety net beyond the SIP lifetime (B-10)
    Port port_uenc = kEncapsulationPort;  ///< mode udp_enc_tun: the best guess
};

/// `size` ports from `first` on, a power of two and aligned to it, so that one policy with a port mask covers them.
struct PortBlock {
    Port first;
    std::uint16_t size = 0;
    bool contains(Port port) const { return port >= first && port.value - first.value < size; }
    bool is_aligned() const {
        return size != 0 && (size & (size - 1)) == 0 && first.value != 0 && first.value % size == 0 &&
               first.value + size <= 65536;
    }
    friend auto operator<=>(const PortBlock&, const PortBlock&) = default;
};

/// Protected ports of an access address in mode udp_enc_tun.
struct NatBlock {
    Address gateway;
    PortBlock ports;
};

/// Protected ports of one access address that must neither accept nor send anything without ESP (B-13).
struct GuardRequest {
    Address gateway;
    std::vector<Port> ports;         ///< protected server and client ports of transport mode
    std::optional<PortBlock> nat{};  ///< those of mode udp_enc_tun
};

/// One wildcard policy: (any, gateway:port) in, (gateway:port, any) out, protocol any, template ESP transport with our
/// reqid. Out guards carry XFRM_POLICY_ICMP, so that an ICMP error about a protected datagram is protected too.
/// With `nat_block` it covers that many ports from the gateway's on, in mode udp_enc_tun: in, the template is a tunnel;
/// out, nothing may leave, for a NatPolicy of the UE's address goes before it.
struct GuardPolicy {
    Direction direction{};
    Endpoint gateway;
    std::uint16_t nat_block = 0;
    friend auto operator<=>(const GuardPolicy&, const GuardPolicy&) = default;
};
std::vector<GuardPolicy> guard_policies(const GuardRequest& request);

/// The outbound policy of one NAT's address, for all phones behind it: (gateway:block, nat:any), template ESP tunnel
/// from `gateway` to `nat` with our reqid. It stands as long as some set's SAs do. With `inner` it is that of one SA to
/// a phone with a private address inside: (gateway:the one port of the block, inner). Two of those never differ in
/// `nat` alone.
struct NatPolicy {
    Address gateway;
    PortBlock block;
    Address nat;
    Endpoint inner{};  ///< port 0: none
    bool is_of_inner() const { return inner.port != Port{}; }
    friend bool operator==(const NatPolicy&, const NatPolicy&) = default;
    friend auto operator<=>(const NatPolicy& a, const NatPolicy& b) {
        return std::tie(a.gateway, a.block, a.inner, a.nat) <=> std::tie(b.gateway, b.block, b.inner, b.nat);
    }
};

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
