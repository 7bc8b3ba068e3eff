// Keys of installed SAs on their way to another gateway of a cluster: sealed by the engine, opened by another engine,
// never seen by gmgated in between.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>

#include "base/error.h"
#include "base/siphash.h"
#include "base/task.h"
#include "xfrm/sa.h"

namespace gmgate::xfrm {

/// gm_sealed of the engine's protocol, opaque to gmgated.
using SealedKeys = std::array<std::uint8_t, 128>;

/// What of a record the seal covers beside cluster, parameters, epoch and sequence numbers: a digest of everything else
/// in it.
using RecordDigest = std::array<std::uint8_t, 32>;

/// "Seal the keys of this set, which is installed."
struct SealOrder {
    SetParameters parameters;
    std::uint64_t epoch = 0;  ///< of the node that owns the addresses, from 1
    RecordDigest record{};
};

/// "Install this set from what another node sealed."
struct SealedInstall {
    SetParameters parameters;
    SealedKeys keys{};
    RecordDigest record{};
    std::uint64_t epoch = 0;  ///< of the node that takes over: later than the seal's
    Mark mark;
    std::chrono::seconds lifetime{0};
    Port port_uenc = kEncapsulationPort;  ///< mode udp_enc_tun: where the UE's NAT was when it was written
};

/// Where the next node begins to count in each epoch: a phone has seen nothing beyond it from the node before.
inline constexpr std::uint32_t kSequencesPerEpoch = 1U << 20;

/// An engine that has the cluster's secret.
class Sealing {
public:
    virtual ~Sealing() = default;
    /// Reads the keys and the sequence numbers of the four SAs from the kernel. Reaction::refused: no secret was given,
    /// or the set is not there; EKEYREJECTED: the kernel does not tell keys (lockdown).
    virtual Task<Result<SealedKeys>> seal_set(SealOrder order) = 0;
    /// The inbound window begins at the sequence numbers of the seal, full; outbound counting kSequencesPerEpoch beyond
    /// it for each epoch since. Reaction::refused with EKEYREJECTED: the seal is not of this cluster, record, set,
    /// epoch or key. Otherwise as xfrm::Kernel::install_set().
    virtual Task<Result<void>> install_sealed(SealedInstall order) = 0;
    /// The same for a set that install_sealed() has installed: it counts on as the newer seal says; its keys, lifetime
    /// and NAT stay. Reaction::refused with ENOENT: it is not there whole. Otherwise as install_sealed().
    virtual Task<Result<void>> move_sealed(SealedInstall order) = 0;
    /// The same on every node: what the marks of dialogs are made with, so that a call outlives its node. Derived from
    /// the secret's first line; nothing else can be derived from it. Reaction::refused: no secret was given.
    virtual Task<Result<SipHashKey>> dialog_key() = 0;
};

}  // namespace gmgate::xfrm
