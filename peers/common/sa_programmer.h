// The phone's SAs and policies in the kernel, written with libnl-xfrm-3 (the gateway uses libmnl: a bug must not cancel
// itself out).
#pragma once

#include "algorithms.h"
#include "bytes.h"
#include "endpoint.h"
#include "sec_agree.h"

#include <memory>
#include <optional>
#include <vector>

struct nl_sock;
struct xfrmnl_sa;
struct xfrmnl_sp;

namespace gmgate::peers {

/// Addresses, ports, SPIs and keys of one set of four SAs. TS 33.203 §7.1.
struct SaSetSpec {
    Endpoint ue;  ///< port ignored
    Endpoint network;
    /// Mode UDP-enc-tun (Annex M): the phone's public address, which packets have inside the tunnel; outside they have
    /// `ue` and UDP 4500. Absent: transport mode.
    std::optional<Endpoint> inner{};
    SecEnd ue_end;
    SecEnd network_end;
    AlgPair pair;
    std::uint32_t reqid = 0;
    Key<16> ck;
    Key<16> ik;
};

class SaProgrammer;

/// Four SAs and four policies that exist as long as this object does.
class SaSet {
public:
    ~SaSet();
    SaSet(const SaSet&) = delete;
    SaSet& operator=(const SaSet&) = delete;

private:
    friend class SaProgrammer;
    explicit SaSet(nl_sock* socket) : socket_(socket) {}
    nl_sock* socket_;  // owned by the SaProgrammer, which outlives its sets
    std::vector<xfrmnl_sa*> states_;
    std::vector<xfrmnl_sp*> policies_;
};

/// One netlink socket; every request is acknowledged before it returns. Not thread-safe; blocks for microseconds.
class SaProgrammer {
public:
    /// Fails when the kernel has no XFRM or the process may not use it.
    [[nodiscard]] static Result<std::unique_ptr<SaProgrammer>> open();
    /// Installs all or nothing. libnl keeps copies of the keys in the objects until the set goes and does not wipe
    /// them: acceptable for a test phone, whose K is on its command line.
    [[nodiscard]] Result<std::unique_ptr<SaSet>> install(const SaSetSpec& spec);

private:
    struct CloseSocket {
        void operator()(nl_sock* socket) const;
    };
    std::unique_ptr<nl_sock, CloseSocket> socket_;
};

}  // namespace gmgate::peers
