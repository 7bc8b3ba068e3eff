#include "tests/support/fake_kernel.h"

#include <algorithm>
#include <cerrno>

#include <asio/async_result.hpp>
#include <asio/post.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>

namespace gmgate::test {
namespace {

std::unexpected<Error> refused(const char* what, int code) {
    return system_failure(Reaction::refused, std::string("the kernel refused ") + what, code);
}

std::vector<xfrm::SaId> ids_of(const xfrm::SetParameters& parameters) {
    std::vector<xfrm::SaId> ids;
    for (const auto& sa : xfrm::four_sas(parameters)) ids.push_back(sa.id);
    return ids;
}

}  // namespace

// Counts one netlink message; the errno to refuse it with, 0 for none.
int FakeKernel::message() {
    ++counters_.requests;
    const auto failure = failures_.find(++messages_);
    return failure == failures_.end() ? 0 : failure->second;
}

// Every call suspends at least once, as with the real backend, so that interleavings are not hidden.
Task<void> FakeKernel::answer() {
    auto executor = co_await asio::this_coro::executor;
    if (!is_holding_) {
        co_await asio::post(executor, asio::use_awaitable);
        co_return;
    }
    auto wait = [this, executor](auto handler) {
        held_.push_back([executor, resume = std::move(handler)]() mutable { asio::post(executor, std::move(resume)); });
    };
    co_await asio::async_initiate<const asio::use_awaitable_t<>, void()>(std::move(wait), asio::use_awaitable);
}

bool FakeKernel::release_one() {
    if (held_.empty()) return false;
    auto resume = std::move(held_.front());
    held_.pop_front();
    resume();
    return true;
}

void FakeKernel::release() {
    is_holding_ = false;
    while (release_one()) {}
}

std::size_t FakeKernel::count(std::string_view name) const {
    return static_cast<std::size_t>(std::ranges::count(calls_, name, &Call::name));
}

xfrm::SaReport* FakeKernel::report_of(const xfrm::SaId& id) {
    const auto found = reports_.find(id);
    return found == reports_.end() || !sas_.contains(id) ? nullptr : &found->second;
}

int FakeKernel::undo(const xfrm::SaId& id) {
    const int code = message();
    if (code != 0) return code;
    sas_.erase(id);
    ++counters_.rollbacks;
    return 0;
}

Task<Result<void>> FakeKernel::install_set(xfrm::SetRequest request) {
    calls_.push_back({"install_set", request.parameters, request.lifetime, request.mark});
    const auto sas = xfrm::four_sas(request.parameters, request.port_uenc);
    std::vector<xfrm::SaId> applied;
    int first_refusal = 0;
    for (const auto& sa : sas) {  // like the kernel: a refused message does not stop those behind it
        int code = message();
        if (code == 0 && (sas_.contains(sa.id) || foreign_.contains(sa.id))) code = EEXIST;
        if (code != 0) {
            if (first_refusal == 0) first_refusal = code;
            continue;
        }
        const LiveSa live{sa, request.mark, request.parameters.algorithms, request.lifetime, clock_->wall()};
        sas_.emplace(sa.id, live);
        xfrm::SaReport report{};
        report.sa = sa;
        report.mark = request.mark;
        report.algorithms = live.algorithms;
        reports_[sa.id] = report;
        applied.push_back(sa.id);
    }
    request.keys = xfrm::EspKeys{};
    if (first_refusal != 0)
        for (const auto& id : applied)
            if (undo(id) != 0) undo(id);
    co_await answer();
    if (first_refusal != 0) {
        ++counters_.sets_refused;
        co_return refused("an SA", first_refusal);
    }
    ++counters_.sets_installed;
    co_return Result<void>{};
}

Result<void> FakeKernel::remove(const std::vector<xfrm::SaId>& ids) {
    Result<void> result;
    for (const auto& id : ids) {
        const int code = message();
        if (code == 0) sas_.erase(id);
        else if (code != ESRCH && result) result = refused("to delete an SA", code);
    }
    return result;
}

Task<Result<void>> FakeKernel::remove_set(xfrm::SetParameters parameters) {
    calls_.push_back({"remove_set", parameters, {}, {}});
    const auto result = remove(ids_of(parameters));
    co_await answer();
    if (result) ++counters_.sets_removed;
    co_return result;
}

Task<Result<void>> FakeKernel::remove_sas(std::vector<xfrm::SaId> ids) {
    calls_.push_back({"remove_sas", {}, {}, {}});
    const auto result = remove(ids);
    co_await answer();
    co_return result;
}

Task<Result<void>> FakeKernel::extend_set(xfrm::SetParameters parameters, std::chrono::seconds lifetime) {
    calls_.push_back({"extend_set", parameters, lifetime, {}});
    const auto ids = ids_of(parameters);
    int first_refusal = 0;
    for (const auto& id : ids) {  // GETSA: all must be there
        int code = message();
        if (code == 0 && !sas_.contains(id)) code = ESRCH;
        if (first_refusal == 0) first_refusal = code;
    }
    std::vector<std::pair<xfrm::SaId, std::chrono::seconds>> earlier;
    for (const auto& id : ids) {
        if (first_refusal != 0 && earlier.empty()) break;
        if (const int code = message(); code != 0) {
            if (first_refusal == 0) first_refusal = code;
            continue;
        }
        auto& live = sas_.at(id);
        earlier.emplace_back(id, live.hard_limit);
        live.hard_limit = std::chrono::duration_cast<std::chrono::seconds>(clock_->wall() - live.added) + lifetime;
    }
    if (first_refusal != 0)
        for (const auto& [id, limit] : earlier) sas_.at(id).hard_limit = limit;
    co_await answer();
    if (first_refusal != 0) co_return refused("a new lifetime", first_refusal);
    co_return Result<void>{};
}

Task<Result<void>> FakeKernel::follow_nat(xfrm::SetParameters parameters, Port port_uenc) {
    calls_.push_back({"follow_nat", parameters, {}, {}});
    int first_refusal = 0;
    for (const auto& sa : xfrm::four_sas(parameters, port_uenc)) {
        int code = message();
        if (code == 0 && !sas_.contains(sa.id)) code = ESRCH;
        if (code == 0) sas_.at(sa.id).sa = reports_[sa.id].sa = sa;
        else if (first_refusal == 0) first_refusal = code;
    }
    co_await answer();
    if (first_refusal != 0) co_return refused("another port of a NAT", first_refusal);
    co_return Result<void>{};
}

Task<Result<void>> FakeKernel::install_guards(xfrm::GuardRequest request) {
    calls_.push_back({"install_guards", {}, {}, {}});
    std::vector<xfrm::GuardPolicy> added;
    int first_refusal = 0;
    for (const auto& policy : xfrm::guard_policies(request)) {
        const int code = message();
        if (code != 0 && first_refusal == 0) first_refusal = code;
        if (code == 0 && policies_.insert(policy).second) added.push_back(policy);
    }
    if (first_refusal != 0)
        for (const auto& policy : added) policies_.erase(policy);
    co_await answer();
    if (first_refusal != 0) co_return refused("a guard policy", first_refusal);
    co_return Result<void>{};
}

Task<Result<void>> FakeKernel::remove_guards(xfrm::GuardRequest request) {
    calls_.push_back({"remove_guards", {}, {}, {}});
    Result<void> result;
    for (const auto& policy : xfrm::guard_policies(request)) {
        const int code = message();
        if (code == 0) policies_.erase(policy);
        else if (result) result = refused("to delete a guard policy", code);
    }
    co_await answer();
    co_return result;
}

Task<Result<std::vector<xfrm::GuardPolicy>>> FakeKernel::report_guards(xfrm::GuardRequest request) {
    calls_.push_back({"report_guards", {}, {}, {}});
    std::vector<xfrm::GuardPolicy> standing;
    for (const auto& policy : xfrm::guard_policies(request))
        if (message() == 0 && policies_.contains(policy)) standing.push_back(policy);
    co_await answer();
    co_return standing;
}

Task<Result<void>> FakeKernel::dump_each(std::function<void(xfrm::SaReport)> each, std::function<void()>) {
    calls_.push_back({"dump", {}, {}, {}});
    const int code = message();
    if (code == 0)
        for (const auto& [id, live] : sas_) {
            const auto told = reports_.find(id);
            auto report = told == reports_.end() ? xfrm::SaReport{} : told->second;
            report.added = live.added;
            report.hard_lifetime = live.hard_limit;
            each(std::move(report));
        }
    co_await answer();
    if (code != 0) co_return refused("a list of its SAs", code);
    co_return Result<void>{};
}

void FakeKernel::add_sa(const xfrm::Sa& sa, Mark mark, AlgorithmPair algorithms, std::chrono::seconds hard_limit) {
    const auto added = clock_->wall();
    sas_[sa.id] = {sa, mark, algorithms, hard_limit, added};
    xfrm::SaReport report;
    report.sa = sa;
    report.mark = mark;
    report.algorithms = algorithms;
    reports_[sa.id] = report;
}

Task<Result<std::vector<xfrm::SaReport>>> FakeKernel::report_set(xfrm::SetParameters parameters) {
    calls_.push_back({"report_set", parameters, {}, {}});
    std::vector<xfrm::SaReport> reports;
    for (const auto& sa : xfrm::four_sas(parameters))
        if (sas_.contains(sa.id)) reports.push_back(reports_[sa.id]);
    co_await answer();
    co_return reports;
}

Task<Result<std::vector<xfrm::ProbeFinding>>> FakeKernel::probe(std::vector<AlgorithmPair> allowed) {
    calls_.push_back({"probe", {}, {}, {}});
    std::vector<xfrm::ProbeFinding> findings;
    for (const char* family : {"IPv4", "IPv6"}) {
        for (const auto pair : allowed) {
            const bool is_lacking = std::ranges::find(lacking_, pair) != lacking_.end();
            auto feature =
                std::string(to_string(pair.alg)) + " with " + std::string(to_string(pair.ealg)) + ", " + family;
            findings.push_back({std::move(feature), !is_lacking, is_lacking ? "made absent by the test" : "",
                                is_lacking ? "none" : ""});
        }
    }
    co_await answer();
    co_return findings;
}

}  // namespace gmgate::test
