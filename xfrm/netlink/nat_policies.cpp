#include "xfrm/netlink/nat_policies.h"

#include <algorithm>
#include <tuple>

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

NatPolicy NatPolicies::inner_policy(const Use& use) {
    return {use.policy.gateway, {use.ours, 1}, use.policy.nat, {*use.inner, use.theirs}};
}

std::vector<NatPolicy> NatPolicies::policies_for(const Sa& sa, const std::optional<Address>& inner) const {
    const auto policy = sa.direction == Direction::in ? policy_for(sa) : std::nullopt;
    if (!policy) return {};
    std::vector<NatPolicy> all{*policy};
    if (inner) all.push_back(inner_policy({*policy, {}, 0, sa.destination.port, sa.source.port, true, inner}));
    return all;
}

void NatPolicies::add(const Sa& sa, Mark mark, const std::optional<Address>& inner) {
    const auto policy = sa.direction == Direction::in ? policy_for(sa) : std::nullopt;
    if (!policy) return;
    const Use use{*policy, mark, generation_, sa.destination.port, sa.source.port, sa.has_any_inner, inner};
    const auto [at, is_new] = uses_.try_emplace(sa.id, use);
    at->second.generation = generation_;
    at->second.mark = mark;
    if (!is_new) return;
    ++needed_[*policy].uses;
    if (inner) ++needed_[inner_policy(use)].uses;
}

void NatPolicies::release(const NatPolicy& policy, std::vector<NatPolicy>& unneeded) {
    const auto state = needed_.find(policy);
    if (--state->second.uses != 0) return;
    needed_.erase(state);
    // Two of one place: the kernel has one of them, which another set's SA needs still.
    if (!needed_at(policy)) unneeded.push_back(policy);
}

std::vector<NatPolicy> NatPolicies::remove(const SaId& id, std::optional<Mark> only) {
    std::vector<NatPolicy> unneeded;
    const auto at = uses_.find(id);
    if (at == uses_.end() || (only && at->second.mark != *only)) return unneeded;
    const auto use = at->second;
    uses_.erase(at);
    release(use.policy, unneeded);
    if (use.inner) release(inner_policy(use), unneeded);
    return unneeded;
}

// Behind one NAT the two ports of an SA are its alone: they say whose the policy is.
void NatPolicies::claim(std::span<const NatPolicy> told) {
    using Ends = std::tuple<Address, Port, Address, Port>;  // gateway, NAT
    std::map<Ends, Use*> waiting;
    for (auto& [id, use] : uses_)
        if (use.has_any_inner && !use.inner) waiting[{use.policy.gateway, use.ours, use.policy.nat, use.theirs}] = &use;
    for (const auto& policy : told) {
        if (!policy.is_of_inner()) continue;
        const auto at = waiting.find({policy.gateway, policy.block.first, policy.nat, policy.inner.port});
        if (at == waiting.end()) continue;
        at->second->inner = policy.inner.address;
        ++needed_[policy].uses;
        waiting.erase(at);
    }
}

std::optional<NatPolicy> NatPolicies::needed_at(const NatPolicy& place) const {
    auto first = place;
    if (place.is_of_inner()) first.nat = Address{};  // before every other
    const auto at = needed_.lower_bound(first);
    if (at == needed_.end() || at->first.gateway != place.gateway || at->first.block != place.block ||
        at->first.inner != place.inner || (!place.is_of_inner() && at->first.nat != place.nat))
        return std::nullopt;
    return at->first;
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
