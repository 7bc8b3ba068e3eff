// Which policies of NAT addresses are needed, by the inbound SAs that go through them. Pure: no I/O.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/types.h"
#include "xfrm/sa.h"

namespace gmgate::xfrm {

/// Counts inbound SAs: their SPIs are ours, so that no two have one id. What is told twice counts once.
class NatPolicies {
public:
    explicit NatPolicies(std::vector<NatBlock> blocks) : blocks_(std::move(blocks)) {}

    /// False: there is no block, so nothing is ever needed.
    bool are_used() const { return !blocks_.empty(); }
    /// nullopt: transport mode, or ports of no block.
    std::optional<NatPolicy> policy_for(const Sa& sa) const;
    /// What an inbound SA in mode udp_enc_tun needs: policy_for(), and that of the SA beside it for the address `inner`
    /// that the UE may have inside. Empty where policy_for() is.
    std::vector<NatPolicy> policies_for(const Sa& sa, const std::optional<Address>& inner) const;

    /// An SA that exists, or that the kernel is being asked for. Outbound ones and other modes are passed over. A list
    /// of the kernel's SAs tells no `inner`; what is known of it stays.
    void add(const Sa& sa, Mark mark, const std::optional<Address>& inner = std::nullopt);
    /// The SA goes; the policies that nobody needs any more come back. `only`: nothing happens to another set's.
    std::vector<NatPolicy> remove(const SaId& id, std::optional<Mark> only = std::nullopt);
    /// Policies of inner addresses that the kernel tells: those whose SA is here and has none are that SA's.
    void claim(std::span<const NatPolicy> told);

    bool is_needed(const NatPolicy& policy) const { return needed_.contains(policy); }
    /// The one that is needed in the place of a policy whose `nat` may not be known.
    std::optional<NatPolicy> needed_at(const NatPolicy& place) const;
    std::vector<NatPolicy> needed() const;
    /// Known to be in the kernel: need not be asked for.
    bool stands(const NatPolicy& policy) const;
    void set_standing(const NatPolicy& policy, bool stands);

    /// Around a list of all SAs: those that it did not tell, and that were not added meanwhile, are gone.
    void begin_list() { ++generation_; }
    void end_list();

private:
    struct HashOfId {
        std::size_t operator()(const SaId& id) const noexcept {
            return std::hash<Address>{}(id.destination) * 31 + id.spi.value;
        }
    };
    struct Use {
        NatPolicy policy;
        Mark mark;
        std::uint64_t generation = 0;
        Port ours, theirs;           ///< of the SA
        bool has_any_inner = false;  ///< so there is, or was, a policy of an inner address
        std::optional<Address> inner{};
    };
    struct State {
        std::size_t uses = 0;
        bool stands = false;
    };
    static NatPolicy inner_policy(const Use& use);
    void release(const NatPolicy& policy, std::vector<NatPolicy>& unneeded);

    std::vector<NatBlock> blocks_;
    std::unordered_map<SaId, Use, HashOfId> uses_;
    std::map<NatPolicy, State> needed_;
    std::uint64_t generation_ = 0;
};

}  // namespace gmgate::xfrm
