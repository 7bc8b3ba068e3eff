// Values to netlink bytes and back (linux/xfrm.h, linux/netlink.h). Pure: no I/O, no state, no allocation for requests.
#pragma once

#include <array>
#include <chrono>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "xfrm/netlink/message_buffer.h"
#include "xfrm/sa.h"

namespace gmgate::xfrm {

/// How gmgate marks what is its own in the kernel.
struct Ownership {
    ReqId reqid{21321};                    ///< on every SA and policy; far above charon's, which count from 1
    std::uint32_t mark_mask = 0xffffffff;  ///< the bits of the packet mark that inbound SAs may set
};

/// Anti-replay window of every SA: 64 is the default that RFC 4303 §3.4.3 asks for; B-7 wants it on all SAs.
inline constexpr std::uint32_t kReplayWindow = 64;
/// Priority of the guard policies: before charon's (200000 and up).
inline constexpr std::uint32_t kGuardPriority = 2000;
/// Of the policies of NAT addresses: before the guards.
inline constexpr std::uint32_t kNatPriority = 1000;
/// XFRMA_MTIMER_THRESH of inbound SAs in mode udp_enc_tun: so often the kernel tells of a port that nobody follows.
inline constexpr std::chrono::seconds kMappingPause{5};

// --- requests: each appends one message with sequence number 0 and NLM_F_REQUEST only; false when the buffer is full.

/// Where a set that another node had before begins to count: [0] of each is the SA that four_sas() tells first.
struct StartingSequences {
    std::array<std::uint32_t, 2> out{};  ///< last number that was used: port_pc→port_us, port_ps→port_uc
    std::array<std::uint32_t, 2> in{};   ///< highest that came: port_uc→port_ps, port_us→port_pc
};

/// An installed set's keys and how far its four SAs have counted.
struct KeyedSet {
    EspKeys keys;
    StartingSequences sequences;
};

/// One NEWSA. `keys` must fit `pair` (fits() below). `mark` becomes XFRMA_SET_MARK of an inbound SA, and `seq` of every
/// SA (a number that the kernel keeps and tells, and uses for ACQUIREs only): so outbound SAs too can be told from
/// another set's.
struct NewSa {
    const Sa& sa;
    AlgorithmPair pair;
    const EspKeys& keys;
    Mark mark;
    std::chrono::seconds lifetime;
    /// Last number sent, or highest received: what it says and everything before it has come already.
    std::uint32_t sequence = 0;
};
[[nodiscard]] bool append_new_sa(MessageBuffer& out, const NewSa& request, const Ownership& owner);
/// NEWAE: an SA that stands counts on from `sequence`, as a new one with NewSa::sequence would. It goes by id alone.
[[nodiscard]] bool append_move_sa(MessageBuffer& out, const Sa& sa, std::uint32_t sequence, const Ownership& owner);
/// UPDSA that changes nothing but the limits and the encapsulation's ports: a dummy cipher satisfies the kernel and the
/// keys in force stay (xfrm_state_update copies only `lft` and `encap`). `hard_limit` counts from the SA's add_time, in
/// wall-clock seconds.
[[nodiscard]] bool append_update_lifetime(MessageBuffer& out, const Sa& sa, std::chrono::seconds hard_limit,
                                          const Ownership& owner);
[[nodiscard]] bool append_delete_sa(MessageBuffer& out, const SaId& id);
/// One SA by id; the answer carries its keys.
[[nodiscard]] bool append_get_sa(MessageBuffer& out, const SaId& id);
/// All ESP SAs (NLM_F_DUMP); the kernel filters by protocol, not by reqid.
[[nodiscard]] bool append_dump_sas(MessageBuffer& out);
/// NEWPOLICY is exclusive: EEXIST when a policy with this selector is there.
[[nodiscard]] bool append_new_guard(MessageBuffer& out, const GuardPolicy& policy, const Ownership& owner);
[[nodiscard]] bool append_delete_guard(MessageBuffer& out, const GuardPolicy& policy);
[[nodiscard]] bool append_get_guard(MessageBuffer& out, const GuardPolicy& policy);
/// As the guards: exclusive.
[[nodiscard]] bool append_new_nat_policy(MessageBuffer& out, const NatPolicy& policy, const Ownership& owner);
[[nodiscard]] bool append_delete_nat_policy(MessageBuffer& out, const NatPolicy& policy);
[[nodiscard]] bool append_get_nat_policy(MessageBuffer& out, const NatPolicy& policy);
/// All policies (NLM_F_DUMP), whoever they belong to.
[[nodiscard]] bool append_dump_policies(MessageBuffer& out);

/// True when the keys have the lengths that the pair wants (hmac(sha1) takes any length silently: check here).
bool fits(AlgorithmPair pair, const EspKeys& keys);

/// Sets the sequence number of one message.
void set_sequence(std::span<std::uint8_t> message, std::uint32_t sequence);
/// Adds NLM_F_ACK: the kernel answers also when there is nothing to report.
void request_ack(std::span<std::uint8_t> message);

// --- answers

/// An SA as the kernel tells it, keys not read.
struct SaRecord {
    SaReport report;
    ReqId reqid;
    /// ESP, transport mode or a tunnel inside UDP between the addresses of its selector, which has both addresses and
    /// both ports, an algorithm pair of ours.
    bool is_known_kind = false;
};

/// A policy as the kernel tells it.
struct PolicyRecord {
    GuardPolicy guard;  ///< meaningful when is_guard_shaped
    bool is_guard_shaped =
        false;  ///< selector, priority, action, ICMP flag and template are those that append_new_guard writes
    std::optional<NatPolicy> nat;  ///< it is as append_new_nat_policy writes it
    std::uint32_t priority = 0;
    ReqId reqid;  ///< of the first template, 0 without one
};

struct Reply {
    enum class Kind {
        status,  ///< NLMSG_ERROR: `code` 0 is an acknowledgement
        done,    ///< NLMSG_DONE, the end of a dump
        sa,
        policy,
        other,
    };
    Kind kind = Kind::other;
    std::uint32_t sequence = 0;
    bool is_interrupted = false;  ///< NLM_F_DUMP_INTR: the dump is not consistent
    int code = 0;                 ///< positive errno
    std::string text;             ///< the kernel's words (NLMSGERR_ATTR_MSG), may be empty
    std::optional<SaRecord> sa;
    std::optional<PolicyRecord> policy;
    std::span<const std::uint8_t> message;  ///< the whole of it, until `handle` returns
};

/// Calls `handle` for each message of one datagram; false when the datagram is malformed (what came before it was
/// handled). The caller wipes the datagram afterwards: SA messages carry keys.
bool decode(std::span<const std::uint8_t> datagram, const std::function<void(Reply&)>& handle);

/// The secret part of a told SA, for the one who seals it.
struct SaSecrets {
    EspKeys keys;
    std::uint32_t sent = 0, received = 0;  ///< sequence numbers
};
/// Reads it from one message that holds an SA; nullopt when it has no keys, or keys that the kernel has blanked.
std::optional<SaSecrets> read_secrets(std::span<const std::uint8_t> message);

}  // namespace gmgate::xfrm
