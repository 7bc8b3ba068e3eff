#include "xfrm/netlink/nat_policies.h"

#include <algorithm>

namespace gmgate::xfrm {

std::optional<NatPolicy> NatPolicies::policy_for(const Sa& sa) const {
    if (!sa.encapsulation) return std::nullopt;
    const bool is_in = sa.direction == Direction::in;
    const auto& ours = is_in ? sa.destination : sa.source;
    const auto& theirs = is_in ? sa.source : sa.destination;
    const auto block = std::ranges::find_if(
        blocks_, [&](const NatBlock& one) { return one.gateway == ours.address && one.ports.contains(ours.port); });
    if (block == blocks_.end()) return std::nullopt;
    return NatPolicy{block->gateway, block->ports, theirs.address};
}

void NatPolicies::add(const Sa& sa, Mark mark) {
    const auto policy = sa.direction == Direction::in ? policy_for(sa) : std::nullopt;
    if (!policy) return;
    const auto [at, is_new] = uses_.try_emplace(sa.id, Use{*policy, mark, generation_});
    at->second.generation = generation_;
    at->second.mark = mark;
    if (is_new) ++needed_[*policy].uses;
}

std::optional<NatPolicy> NatPolicies::remove(const SaId& id, std::optional<Mark> only) {
    const auto at = uses_.find(id);
    if (at == uses_.end() || (only && at->second.mark != *only)) return std::nullopt;
    const auto policy = at->second.policy;
    uses_.erase(at);
    const auto state = needed_.find(policy);
    if (--state->second.uses != 0) return std::nullopt;
    needed_.erase(state);
    return policy;
}

std::vector<NatPolicy> NatPolicies::needed() const {
    std::vector<NatPolicy> all;
    for (const auto& [policy, state] : needed_) all.push_back(policy);
    return all;
}

bool NatPolicies::stands(const NatPolicy& policy) const {
    const auto at = needed_.find(policy);
    return at != needed_.end() && at->second.stands;
}

void NatPolicies::set_standing(const NatPolicy& policy, bool stands) {
    if (const auto at = needed_.find(policy); at != needed_.end()) at->second.stands = stands;
}

void NatPolicies::end_list() {
    std::vector<SaId> gone;
    for (const auto& [id, use] : uses_)
        if (use.generation != generation_) gone.push_back(id);
    for (const auto& id : gone) static_cast<void>(remove(id));
}

}  // namespace gmgate::xfrm
