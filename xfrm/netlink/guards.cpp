// The guard policies of NetlinkKernel: few, installed once, kept over a crash.
#include <cerrno>

#include <fmt/format.h>

#include "xfrm/netlink/kernel.h"
#include "xfrm/netlink/refusal.h"

namespace gmgate::xfrm {
namespace {

std::vector<GuardPolicy> part_of(const std::vector<GuardPolicy>& all, std::size_t start) {
    const auto end = std::min(all.size(), start + NetlinkQueue::kBatchLimit);
    return {all.begin() + static_cast<std::ptrdiff_t>(start), all.begin() + static_cast<std::ptrdiff_t>(end)};
}

}  // namespace

std::string describe(const GuardPolicy& policy) {
    return std::string("the guard policy ") + (policy.direction == Direction::in ? "in " : "out ") +
           policy.gateway.to_string() +
           (policy.nat_block == 0 ? "" : fmt::format(" and the {} ports behind it", policy.nat_block - 1));
}

Task<Result<void>> NetlinkKernel::install_guards(GuardRequest request) {
    const auto all = guard_policies(request);
    for (std::size_t start = 0; start < all.size(); start += NetlinkQueue::kBatchLimit) {
        auto installed = co_await install_some_guards(part_of(all, start));
        if (!installed) co_return installed;
    }
    co_return Result<void>{};
}

Task<Result<void>> NetlinkKernel::install_some_guards(std::vector<GuardPolicy> policies) {
    const auto answer = co_await exchange_twice([this, &policies] {
        auto messages = buffer(policies.size());
        for (const auto& policy : policies) static_cast<void>(append_new_guard(messages, policy, settings_.owner));
        return messages;
    });
    if (!answer) co_return std::unexpected(answer.error());
    std::vector<GuardPolicy> added, existing;
    Result<void> result;
    for (std::size_t i = 0; i < policies.size(); ++i) {
        const auto& outcome = answer->outcomes[i];
        if (outcome.code == 0) added.push_back(policies[i]);
        else if (outcome.code == EEXIST) existing.push_back(policies[i]);
        else if (result) result = refusal(outcome, describe(policies[i]));
    }
    if (result) result = co_await check_existing(std::move(existing));
    if (!result && !added.empty()) {
        auto deletions = buffer(added.size());
        for (const auto& policy : added) static_cast<void>(append_delete_guard(deletions, policy));
        static_cast<void>(co_await queue_->exchange(std::move(deletions), NetlinkQueue::Place::front));
    }
    co_return result;
}

bool NetlinkKernel::is_our_guard(const PolicyRecord& told, const GuardPolicy& meant) const {
    return told.is_guard_shaped && told.guard == meant && told.reqid == settings_.owner.reqid;
}

// A policy that stands in the place of a guard must be that guard: with another template or without XFRM_POLICY_ICMP
// the port would look protected and not be.
Task<Result<void>> NetlinkKernel::check_existing(std::vector<GuardPolicy> policies) {
    if (policies.empty()) co_return Result<void>{};
    auto messages = buffer(policies.size());
    for (const auto& policy : policies) static_cast<void>(append_get_guard(messages, policy));
    const auto answer = co_await queue_->exchange(std::move(messages), NetlinkQueue::Place::front);
    if (!answer) co_return std::unexpected(answer.error());
    for (std::size_t i = 0; i < policies.size(); ++i) {
        const auto& told = answer->outcomes[i].policy;
        if (!told) co_return refusal(answer->outcomes[i], "to tell of " + describe(policies[i]));
        if (is_our_guard(*told, policies[i])) continue;
        co_return failure(Reaction::refused,
                          "another policy stands in the place of " + describe(policies[i]) + " (priority " +
                              std::to_string(told->priority) + ", reqid " + std::to_string(told->reqid.value) +
                              "): find it with `ip -d xfrm policy` and delete it",
                          EEXIST);
    }
    co_return Result<void>{};
}

Task<Result<std::vector<GuardPolicy>>> NetlinkKernel::report_guards(GuardRequest request) {
    std::vector<GuardPolicy> standing;
    const auto all = guard_policies(request);
    for (std::size_t start = 0; start < all.size(); start += NetlinkQueue::kBatchLimit) {
        const auto part = part_of(all, start);
        const auto answer = co_await exchange_twice([this, &part] {
            auto messages = buffer(part.size());
            for (const auto& policy : part) static_cast<void>(append_get_guard(messages, policy));
            return messages;
        });
        if (!answer) co_return std::unexpected(answer.error());
        for (std::size_t i = 0; i < part.size(); ++i)
            if (const auto& told = answer->outcomes[i].policy; told && is_our_guard(*told, part[i]))
                standing.push_back(part[i]);
    }
    co_return standing;
}

Task<Result<void>> NetlinkKernel::remove_guards(GuardRequest request) {
    const auto all = guard_policies(request);
    for (std::size_t start = 0; start < all.size(); start += NetlinkQueue::kBatchLimit) {
        auto removed = co_await remove_some_guards(part_of(all, start));
        if (!removed) co_return removed;
    }
    co_return Result<void>{};
}

// Asks first: DELPOLICY goes by selector alone and would take another's policy.
Task<Result<void>> NetlinkKernel::remove_some_guards(std::vector<GuardPolicy> policies) {
    const auto told = co_await exchange_twice([this, &policies] {
        auto messages = buffer(policies.size());
        for (const auto& policy : policies) static_cast<void>(append_get_guard(messages, policy));
        return messages;
    });
    if (!told) co_return std::unexpected(told.error());
    std::vector<GuardPolicy> ours;
    for (std::size_t i = 0; i < policies.size(); ++i)
        if (const auto& policy = told->outcomes[i].policy; policy && policy->reqid == settings_.owner.reqid)
            ours.push_back(policies[i]);
    const auto answer = co_await exchange_twice([this, &ours] {
        auto messages = buffer(ours.size());
        for (const auto& policy : ours) static_cast<void>(append_delete_guard(messages, policy));
        return messages;
    });
    if (!answer) co_return std::unexpected(answer.error());
    for (std::size_t i = 0; i < ours.size(); ++i) {
        const int code = answer->outcomes[i].code;
        if (code != 0 && code != ENOENT) co_return refusal(answer->outcomes[i], "to delete " + describe(ours[i]));
    }
    co_return Result<void>{};
}

}  // namespace gmgate::xfrm
