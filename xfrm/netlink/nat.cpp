// Mode udp_enc_tun in NetlinkKernel: the policies of NAT addresses, and ports that NATs give anew.
#include <algorithm>
#include <cerrno>

#include <fmt/format.h>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>

#include "xfrm/netlink/kernel.h"
#include "xfrm/netlink/refusal.h"

namespace gmgate::xfrm {
namespace {

std::string describe(const NatPolicy& policy) {
    if (policy.is_of_inner())
        return fmt::format("the policy for {} behind the NAT {} at {} port {}", policy.inner.to_string(),
                           policy.nat.to_string(), policy.gateway.to_string(), policy.block.first.value);
    return fmt::format("the policy for the NAT {} at {} ports {} to {}", policy.nat.to_string(),
                       policy.gateway.to_string(), policy.block.first.value,
                       policy.block.first.value + policy.block.size - 1);
}

}  // namespace

void NetlinkKernel::heard(const KernelEvent& event) {
    using Kind = KernelEvent::Kind;
    if (event.kind == Kind::sa_deleted || event.kind == Kind::hard_expired) own_.erase(event.sa);
    if (event.kind == Kind::sas_flushed || event.kind == Kind::events_lost) own_.clear();
    if (!nat_.are_used()) return;
    std::vector<NatPolicy> gone, missing;
    if (event.kind == Kind::sa_deleted || event.kind == Kind::hard_expired) {
        gone = nat_.remove(event.sa, event.mark);
    } else if (event.kind == Kind::nat_policy_deleted) {
        const auto policy = nat_.needed_at(event.nat_policy);
        if (policy && event.is_replaced) return asio::co_spawn(executor_, put_right(*policy), asio::detached);
        if (policy) missing.push_back(*policy);
    } else if (event.kind == Kind::policies_flushed) {
        missing = nat_.needed();
    }
    if (gone.empty() && missing.empty()) return;
    asio::co_spawn(executor_, mend_nat_policies(std::move(gone), std::move(missing)), asio::detached);
}

// What cannot be done now is done with the next list of SAs.
Task<void> NetlinkKernel::mend_nat_policies(std::vector<NatPolicy> gone, std::vector<NatPolicy> missing) {
    std::erase_if(gone, [this](const NatPolicy& policy) { return nat_.needed_at(policy).has_value(); });
    for (std::size_t start = 0; start < gone.size() + missing.size(); start += NetlinkQueue::kBatchLimit) {
        const auto end = std::min(gone.size() + missing.size(), start + NetlinkQueue::kBatchLimit);
        auto messages = buffer(end - start);
        for (std::size_t i = start; i < end; ++i) {
            if (i < gone.size()) static_cast<void>(append_delete_nat_policy(messages, gone[i]));
            else if (nat_.is_needed(missing[i - gone.size()]))  // still: the batches before took their time
                static_cast<void>(append_new_nat_policy(messages, missing[i - gone.size()], settings_.owner));
        }
        static_cast<void>(co_await queue_->exchange(std::move(messages), NetlinkQueue::Place::front));
    }
}

// Somebody wrote another policy in its place, which sends what is meant for the NAT another way, or in clear. For the
// moment between the two the guard lets nothing out.
Task<void> NetlinkKernel::put_right(NatPolicy policy) {
    if (!nat_.is_needed(policy)) co_return;
    auto messages = buffer(2);
    static_cast<void>(append_delete_nat_policy(messages, policy));
    static_cast<void>(append_new_nat_policy(messages, policy, settings_.owner));
    static_cast<void>(co_await queue_->exchange(std::move(messages), NetlinkQueue::Place::front));
}

// Those that the SAs need and that are not known to stand, each once.
std::vector<NatPolicy> NetlinkKernel::policies_to_add(const std::array<Sa, 4>& sas,
                                                      const std::optional<Address>& inner) const {
    std::vector<NatPolicy> wanted;
    for (const auto& sa : sas)
        for (const auto& policy : nat_.policies_for(sa, inner))
            if (!nat_.stands(policy) && std::ranges::find(wanted, policy) == wanted.end()) wanted.push_back(policy);
    return wanted;
}

// The sets of an install that failed need theirs no more.
Task<void> NetlinkKernel::leave_nat(std::array<Sa, 4> sas) {
    std::vector<NatPolicy> gone, missing;
    for (const auto& sa : sas)
        for (const auto& policy : nat_.remove(sa.id)) gone.push_back(policy);
    if (!gone.empty()) co_await mend_nat_policies(std::move(gone), std::move(missing));
}

// What the kernel said to a NEWPOLICY. EEXIST: it stands from earlier, or somebody else's is in its place, which would
// send what is meant for the NAT another way.
Task<Result<void>> NetlinkKernel::judge_nat_policy(NatPolicy policy, Outcome outcome) {
    if (outcome.code == EEXIST) {
        auto question = buffer(1);
        static_cast<void>(append_get_nat_policy(question, policy));
        const auto answer = co_await queue_->exchange(std::move(question), NetlinkQueue::Place::front);
        if (!answer) co_return std::unexpected(answer.error());
        const auto& told = answer->outcomes[0].policy;
        const bool is_ours = told && told->nat == policy && told->reqid == settings_.owner.reqid;
        if (!is_ours)
            co_return failure(Reaction::refused,
                              "another policy stands in the place of " + describe(policy) +
                                  ": find it with `ip -d xfrm policy` and delete it",
                              EBUSY);
    } else if (outcome.code != 0) {
        co_return refusal(outcome, describe(policy));
    }
    nat_.set_standing(policy, true);
    co_return Result<void>{};
}

// With a list of all SAs: policies of NAT addresses that no SA needs go, those that are missing come. They may be left
// from a process that died, or have been deleted while nobody heard.
Task<Result<void>> NetlinkKernel::audit_nat_policies() {
    nat_.end_list();
    if (!nat_.are_used()) co_return Result<void>{};
    std::vector<NatPolicy> told;
    const std::function<void(Reply&)> take = [&](Reply& reply) {
        if (reply.policy && reply.policy->nat && reply.policy->reqid == settings_.owner.reqid)
            told.push_back(*reply.policy->nat);
    };
    auto message = buffer(1);
    static_cast<void>(append_dump_policies(message));
    const auto answer = co_await queue_->dump(std::move(message), take);
    if (!answer) co_return std::unexpected(answer.error());
    if (answer->outcomes[0].code != 0) co_return refusal(answer->outcomes[0], "a list of its policies");
    nat_.claim(told);
    std::vector<NatPolicy> gone, missing;
    for (const auto& policy : told) {
        if (nat_.is_needed(policy)) nat_.set_standing(policy, true);
        else gone.push_back(policy);
    }
    for (const auto& policy : nat_.needed())
        if (std::ranges::find(told, policy) == told.end()) missing.push_back(policy);
    co_await mend_nat_policies(std::move(gone), std::move(missing));
    co_return Result<void>{};
}

Task<Result<void>> NetlinkKernel::follow_nat(SetParameters parameters, Port port_uenc) {
    if (parameters.mode != Mode::udp_enc_tun || port_uenc == Port{})
        co_return failure(Reaction::internal, "only a set in mode UDP-enc-tun has a port at a NAT");
    const auto held = co_await changing_.acquire(key_of(parameters));
    const auto sas = four_sas(parameters, port_uenc);
    auto found = co_await find_set(parameters);
    if (!found) co_return std::unexpected(found.error());
    std::vector<std::chrono::seconds> limits;
    for (std::size_t i = 0; i < sas.size(); ++i) {
        (*found)[i].report.sa.encapsulation = sas[i].encapsulation;
        limits.push_back((*found)[i].report.hard_lifetime);
    }
    co_return co_await limit_set(std::move(*found), std::move(limits));
}

}  // namespace gmgate::xfrm
