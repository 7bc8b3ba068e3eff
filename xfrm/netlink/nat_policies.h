// Which policies of NAT addresses are needed, by the inbound SAs that go through them. Pure: no I/O.
#pragma once

#include <map>
#include <optional>
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

    /// An SA that exists, or that the kernel is being asked for. Outbound ones and other modes are passed over.
    void add(const Sa& sa, Mark mark);
    /// The SA goes; the policy that nobody needs any more comes back. `only`: nothing happens to another set's.
    std::optional<NatPolicy> remove(const SaId& id, std::optional<Mark> only = std::nullopt);

    bool is_needed(const NatPolicy& policy) const { return needed_.contains(policy); }
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
    };
    struct State {
        std::size_t uses = 0;
        bool stands = false;
    };
    std::vector<NatBlock> blocks_;
    std::unordered_map<SaId, Use, HashOfId> uses_;
    std::map<NatPolicy, State> needed_;
    std::uint64_t generation_ = 0;
};

}  // namespace gmgate::xfrm
