// What happens to SAs and policies in the kernel without our asking: expiry, and what others delete. libnl-3 on
// NETLINK_XFRM.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include <asio/any_io_executor.hpp>

#include "base/error.h"
#include "xfrm/netlink/codec.h"
#include "xfrm/sa.h"

namespace gmgate::xfrm {

/// One event. The kernel does not tell who caused it: our own deletions come back, too, and it is the owner of the sets
/// who knows whether one was still wanted.
struct KernelEvent {
    enum class Kind {
        soft_expired,      ///< `sa`, `mark`
        hard_expired,      ///< `sa`, `mark`; the SA is gone
        sa_deleted,        ///< `sa`, `mark`
        sas_flushed,       ///< all ESP SAs of the namespace are gone
        policy_deleted,    ///< `guard`: its place, meaningful for a guard of ours
        policy_replaced,   ///< `guard`
        policies_flushed,  ///< all policies of the namespace are gone
        events_lost,       ///< the socket overflowed (ENOBUFS): only a dump can tell what happened
        /// Something authentic came over the inbound `sa` from another outer address or port (`now`) than the kernel
        /// had
        /// (`before`). At most one in kMappingPause for each SA, unless the port changes.
        mapping_changed,
        nat_policy_deleted,  ///< `nat_policy` (of one of an inner address `nat` is not told): by us or another
    };
    Kind kind{};
    SaId sa;
    Mark mark;  ///< of the set that the SA belongs to (SetRequest::mark)
    GuardPolicy guard;
    Endpoint before{}, now{};
    NatPolicy nat_policy{};
    bool is_replaced = false;  ///< nat_policy_deleted: another policy stands in its place
};

/// Events of SAs with our reqid, of policies whoever they belong to, and flushes. One loop. A BPF filter on the message
/// type keeps NEWSA and UPDSA, which carry keys, from ever reaching the process; DELSA carries them, too (kernel 6.1:
/// xfrm_notify_sa), and cannot be cut without cutting it for other listeners, so every buffer is wiped and no key is
/// read.
class Monitor {
public:
    using Handler = std::function<void(const KernelEvent&)>;
    /// `handle` runs on the executor.
    Monitor(asio::any_io_executor executor, Ownership owner, Handler handle);
    Monitor(const Monitor&) = delete;
    Monitor& operator=(const Monitor&) = delete;
    ~Monitor();

    /// Opens the socket in the network namespace of the moment; from then on no event is missed without events_lost.
    /// Reaction::broken with errno when it cannot be opened. `receive_buffer`: octets, 0 for the default (tests make it
    /// small).
    Result<void> start(int receive_buffer = 0);
    /// Datagrams that reached the process.
    std::uint64_t datagrams() const;

private:
    struct Impl;
    std::shared_ptr<Impl> impl_;  // shared with the handler that waits for the socket
};

/// The event in one datagram; nullopt for messages of other kinds or of others' SAs. Pure.
std::optional<KernelEvent> read_event(std::span<const std::uint8_t> datagram, const Ownership& owner);

}  // namespace gmgate::xfrm
