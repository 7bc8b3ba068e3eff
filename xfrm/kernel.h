// The narrow interface to the kernel's SAD and SPD. Asynchronous from its first day, so that its backend may live in
// this process or in a small privileged one. Backends: NetlinkKernel (libmnl), FakeKernel (tests/support).
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/task.h"
#include "xfrm/sa.h"

namespace gmgate::xfrm {

/// A feature or algorithm that the probe looked for.
struct ProbeFinding {
    std::string feature;  ///< "hmac(sha1) with cbc(aes), IPv6"
    bool present = false;
    std::string reason;  ///< the kernel's words when it is absent
    std::string module;  ///< the module that would bring it ("esp6"), empty when unknown
};

struct KernelCounters {
    std::uint64_t requests = 0;      ///< netlink messages sent
    std::uint64_t system_calls = 0;  ///< sendmsg and recvmsg on the netlink socket
    std::uint64_t sets_installed = 0;
    std::uint64_t sets_refused = 0;  ///< refused by the kernel and rolled back
    std::uint64_t sets_removed = 0;
    std::uint64_t rollbacks = 0;  ///< SAs deleted again because a sibling was refused
};

/// Who does the work behind a Kernel.
struct EngineStatus {
    std::string engine = "in-process";  ///< or "netlink", "libcharon 5.9.8": of a process of its own
    bool is_up = true;
    std::uint32_t pid = 0;                                    ///< of the process of its own
    std::uint32_t starts = 0;                                 ///< how often it was started, 1 when it never died
    std::uint64_t malformed = 0, forbidden = 0, flooded = 0;  ///< requests that the engine itself refused
};

/// Every call is applied whole or rolled back, and completes only when the kernel has acknowledged it. A refusal is an
/// Error with Reaction::refused, the kernel's errno and its extended-ack text. Calls may overlap; they are executed in
/// order of arrival and what is queued meanwhile goes out together. One instance owns one netlink socket: the kernel
/// takes one XFRM request at a time.
class Kernel {
public:
    virtual ~Kernel() = default;

    /// Four NEWSA in one sendmsg with one ACK as fence. EEXIST (an SPI in use at that destination) is a refusal like
    /// any other. After a refusal none of the four exists. The keys are wiped before the call returns. In mode
    /// udp_enc_tun the NatPolicy of the UE's address comes with its first set, and goes with its last.
    virtual Task<Result<void>> install_set(SetRequest request) = 0;
    /// Deletes the four SAs; one that is gone already is no error.
    virtual Task<Result<void>> remove_set(SetParameters parameters) = 0;
    /// New hard limit, counted from now, on all four SAs (UPDSA without keys).
    virtual Task<Result<void>> extend_set(SetParameters parameters, std::chrono::seconds lifetime) = 0;
    /// The UE's NAT has its port 4500 at `port_uenc` now: all four SAs of a set in mode udp_enc_tun, in one send. Keys,
    /// selectors, marks, windows and lifetimes stay as they are.
    virtual Task<Result<void>> follow_nat(SetParameters parameters, Port port_uenc) = 0;
    /// Installs what is missing of the guard policies; existing equal ones are kept (they outlive the process on
    /// purpose).
    virtual Task<Result<void>> install_guards(GuardRequest request) = 0;
    /// Removes the guard policies (an explicit operator's wish, never at shutdown).
    virtual Task<Result<void>> remove_guards(GuardRequest request) = 0;
    /// The guard policies of the request that stand in the kernel as install_guards() writes them; missing or other
    /// ones are left out.
    virtual Task<Result<std::vector<GuardPolicy>>> report_guards(GuardRequest request) = 0;
    /// All SAs with our reqid, one by one as the kernel tells them, keys stripped and wiped from the buffers: memory
    /// does not grow with their number. When the kernel's list had to be begun again, `again` is called first and SAs
    /// come a second time. Both are called from within, on the loop, and must not throw.
    virtual Task<Result<void>> dump_each(std::function<void(SaReport)> each, std::function<void()> again) = 0;
    /// The same as one list.
    Task<Result<std::vector<SaReport>>> dump();
    /// What the kernel tells of a set's SAs, packet and failure counters included; an SA that is gone (or another's) is
    /// left out.
    virtual Task<Result<std::vector<SaReport>>> report_set(SetParameters parameters) = 0;
    /// Deletes SAs by id (stale ones found by dump()); those that are gone already are no error.
    virtual Task<Result<void>> remove_sas(std::vector<SaId> ids) = 0;
    /// Looks for ESP in both families and every allowed algorithm by adding and deleting a dummy SA, which also loads
    /// the modules now and not in the first registration.
    virtual Task<Result<std::vector<ProbeFinding>>> probe(std::vector<AlgorithmPair> allowed) = 0;

    virtual const KernelCounters& counters() const = 0;
    virtual EngineStatus status() const { return {}; }
};

}  // namespace gmgate::xfrm
