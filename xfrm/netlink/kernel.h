// The libmnl backend of xfrm::Kernel: values in, acknowledged state out; knows roll-back, not sockets or bytes.
#pragma once

#include <memory>
#include <memory_resource>
#include <span>
#include <unordered_map>

#include <asio/any_io_executor.hpp>

#include "base/clock.h"
#include "base/keyed_lock.h"
#include "xfrm/kernel.h"
#include "xfrm/netlink/codec.h"
#include "xfrm/netlink/monitor.h"
#include "xfrm/netlink/nat_policies.h"
#include "xfrm/netlink/queue.h"

namespace gmgate::xfrm {

struct NetlinkSettings {
    Ownership owner;                                                       ///< reqid and the bits of the mark
    std::chrono::milliseconds patience{5000};                              ///< for an answer of the kernel
    std::pmr::memory_resource* memory = std::pmr::get_default_resource();  ///< request and reply buffers
    /// DELSA goes by (address, SPI) alone and takes whose SA it is. With this, nothing is deleted that is not known to
    /// have our reqid and a mark of ours; what is not known is asked for first. For a caller that is not trusted.
    bool deletes_only_own = false;
    std::size_t sa_limit = 0;            ///< with deletes_only_own: SAs of ours that may exist, 0: no limit
    std::vector<NatBlock> nat_blocks{};  ///< protected ports of mode udp_enc_tun
};

/// What an engine needs of the kernel beside xfrm::Kernel to hand sets on to another node: with keys.
class KeyedKernel {
public:
    virtual ~KeyedKernel() = default;
    /// Keys and sequence numbers of a set of ours. Reaction::refused: it is not there whole, or the kernel tells no
    /// keys (EKEYREJECTED).
    virtual Task<Result<KeyedSet>> read_set(SetParameters parameters) = 0;
    /// Kernel::install_set() for a set that has been in use elsewhere.
    virtual Task<Result<void>> install_set_at(SetRequest request, StartingSequences sequences) = 0;
    /// A set of ours that stands counts on from these. Reaction::refused, ENOENT: it is not there whole.
    virtual Task<Result<void>> move_set_to(SetParameters parameters, StartingSequences sequences) = 0;
};

/// Threads: one loop; every call runs on the executor. Each operation costs one sendmsg and one recvmsg when the kernel
/// agrees. When answers are lost or late (Reaction::broken) the socket is opened again and the SAs in question are
/// asked for by id, so that no half set stays behind unknown; what could not even be asked for is asked before the next
/// operation.
class NetlinkKernel final : public Kernel, public KeyedKernel {
public:
    /// `clock` outlives the kernel object. The socket is opened at the first use.
    NetlinkKernel(asio::any_io_executor executor, const Clock& clock, NetlinkSettings settings = {});
    /// With another socket (tests).
    NetlinkKernel(asio::any_io_executor executor, const Clock& clock, NetlinkSettings settings,
                  std::unique_ptr<NetlinkSocket> socket);
    ~NetlinkKernel() override;

    Task<Result<void>> install_set(SetRequest request) override;
    Task<Result<KeyedSet>> read_set(SetParameters parameters) override;
    Task<Result<void>> install_set_at(SetRequest request, StartingSequences sequences) override;
    Task<Result<void>> move_set_to(SetParameters parameters, StartingSequences sequences) override;
    Task<Result<void>> remove_set(SetParameters parameters) override;
    Task<Result<void>> extend_set(SetParameters parameters, std::chrono::seconds lifetime) override;
    Task<Result<void>> follow_nat(SetParameters parameters, Port port_uenc) override;
    Task<Result<void>> install_guards(GuardRequest request) override;
    Task<Result<void>> remove_guards(GuardRequest request) override;
    Task<Result<std::vector<GuardPolicy>>> report_guards(GuardRequest request) override;
    Task<Result<void>> dump_each(std::function<void(SaReport)> each, std::function<void()> again) override;
    Task<Result<std::vector<SaReport>>> report_set(SetParameters parameters) override;
    Task<Result<void>> remove_sas(std::vector<SaId> ids) override;
    Task<Result<std::vector<ProbeFinding>>> probe(std::vector<AlgorithmPair> allowed) override;
    const KernelCounters& counters() const override;

    /// What the kernel tells: SAs that are gone without our asking are known no more, policies of NAT addresses that
    /// somebody else deleted are installed again, those that no SA needs any more are deleted.
    void heard(const KernelEvent& event);
    /// With deletes_only_own: all SAs may be gone.
    void forget_all() { own_.clear(); }

private:
    /// An SA of ours that may or may not exist.
    struct Suspect {
        Sa sa;
        Mark mark;
    };

    struct HashOfId {
        std::size_t operator()(const SaId& id) const noexcept {
            return std::hash<Address>{}(id.destination) * 31 + id.spi.value;
        }
    };
    /// Source and destination port: with the id, the selector of an SA of ours.
    static std::uint32_t ports_of(const Sa& sa) {
        return std::uint32_t{sa.source.port.value} << 16 | sa.destination.port.value;
    }
    bool is_own(const SaRecord& record) const;
    Task<Result<std::vector<SaId>>> own_of(std::vector<Sa> sas, bool by_selector);
    Task<Result<void>> delete_sas(std::vector<SaId> ids);

    MessageBuffer buffer(std::size_t messages) const { return MessageBuffer(messages, settings_.memory); }
    /// One GETSA for each.
    MessageBuffer questions(std::span<const Sa> sas) const;
    Task<Result<Answer>> exchange_twice(std::function<MessageBuffer()> make);
    Task<Result<void>> take_install_answer(std::array<Sa, 4> sas, Mark mark, std::vector<NatPolicy> policies,
                                           std::vector<Outcome> outcomes);
    Task<void> undo_install(std::vector<Suspect> applied);
    Task<bool> settle(std::vector<Suspect> suspects);
    Task<bool> settle_earlier();
    /// Whoever changes what he read of a set holds it meanwhile: a new lifetime beside a new port of a NAT would write
    /// the old one of the other back.
    static SaId key_of(const SetParameters& parameters) { return {parameters.gateway, parameters.spi_ps}; }
    Task<Result<std::vector<SaRecord>>> find_set(SetParameters parameters);
    Task<Result<void>> limit_set(std::vector<SaRecord> found, std::vector<std::chrono::seconds> limits);
    Task<Result<void>> install_some_guards(std::vector<GuardPolicy> policies);
    Task<Result<void>> remove_some_guards(std::vector<GuardPolicy> policies);
    Task<Result<void>> check_existing(std::vector<GuardPolicy> policies);
    bool is_our_guard(const PolicyRecord& told, const GuardPolicy& meant) const;
    Task<Result<ProbeFinding>> probe_one(AlgorithmPair pair, Family family);

    // ---- nat.cpp
    std::vector<NatPolicy> policies_to_add(const std::array<Sa, 4>& sas, const std::optional<Address>& inner) const;
    Task<void> put_right(NatPolicy policy);
    Task<void> mend_nat_policies(std::vector<NatPolicy> gone, std::vector<NatPolicy> missing);
    Task<void> leave_nat(std::array<Sa, 4> sas);
    Task<Result<void>> judge_nat_policy(NatPolicy policy, Outcome outcome);
    Task<Result<void>> audit_nat_policies();

    asio::any_io_executor executor_;
    NetlinkSettings settings_;
    const Clock& clock_;
    std::shared_ptr<NetlinkQueue> queue_;  // shared with its writer coroutine, see NetlinkQueue::start_if_idle
    NatPolicies nat_;
    std::vector<Suspect> suspects_;
    KeyedLock<SaId> changing_;
    std::unordered_map<SaId, std::uint32_t, HashOfId>
        own_;  // with deletes_only_own: SAs of ours that exist as far as is known
    mutable KernelCounters counters_;
};

}  // namespace gmgate::xfrm
