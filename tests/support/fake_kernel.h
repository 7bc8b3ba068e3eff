// An in-memory xfrm::Kernel for unit tests: same contract as NetlinkKernel, every message can be refused, every answer
// held.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "xfrm/kernel.h"

namespace gmgate::test {

/// SAs and policies as maps. Messages (NEWSA, DELSA, UPDSA, GETSA, NEWPOLICY, DELPOLICY) are counted one by one from 1,
/// roll-backs included, so that a test can fail each of them in turn:
///
///     for (std::uint64_t n = 1; n <= messages_of_a_clean_run; ++n) { FakeKernel kernel; kernel.fail_message(n, EPERM);
///     … }
///
/// A failed DELSA of a roll-back is tried once more, as NetlinkKernel does after asking what is left.
class FakeKernel : public xfrm::Kernel {
public:
    struct LiveSa {
        xfrm::Sa sa;
        Mark mark;
        AlgorithmPair algorithms;
        std::chrono::seconds hard_limit{0};  ///< counted from `added`
        std::chrono::system_clock::time_point added;
    };
    /// One call, recorded when it arrives (held ones too).
    struct Call {
        std::string name;  ///< "install_set", "remove_set", …
        std::optional<xfrm::SetParameters> parameters;
        std::chrono::seconds lifetime{0};
        Mark mark;
    };

    /// `clock` tells when an SA was added; the default is the real one. SAs do not expire by themselves: see lose().
    explicit FakeKernel(const Clock* clock = nullptr) : clock_(clock ? clock : &real_clock_) {}

    Task<Result<void>> install_set(xfrm::SetRequest request) override;
    Task<Result<void>> remove_set(xfrm::SetParameters parameters) override;
    Task<Result<void>> extend_set(xfrm::SetParameters parameters, std::chrono::seconds lifetime) override;
    Task<Result<void>> follow_nat(xfrm::SetParameters parameters, Port port_uenc) override;
    Task<Result<void>> install_guards(xfrm::GuardRequest request) override;
    Task<Result<void>> remove_guards(xfrm::GuardRequest request) override;
    Task<Result<std::vector<xfrm::GuardPolicy>>> report_guards(xfrm::GuardRequest request) override;
    Task<Result<void>> dump_each(std::function<void(xfrm::SaReport)> each, std::function<void()> again) override;
    Task<Result<std::vector<xfrm::SaReport>>> report_set(xfrm::SetParameters parameters) override;
    Task<Result<void>> remove_sas(std::vector<xfrm::SaId> ids) override;
    Task<Result<std::vector<xfrm::ProbeFinding>>> probe(std::vector<AlgorithmPair> allowed) override;
    const xfrm::KernelCounters& counters() const override { return counters_; }

    /// Message number `n` (from 1, over the life of the object) is refused with `code`. May be called for several n.
    void fail_message(std::uint64_t n, int code) { failures_[n] = code; }
    /// The message that comes next is refused with `code`.
    void fail_next(int code) { fail_message(messages_ + 1, code); }
    void clear_failures() { failures_.clear(); }
    std::uint64_t messages() const { return messages_; }

    /// From now on calls do their work and then wait before they return, in order of arrival, until they are released.
    /// A held call is work for the loop: drive it with io_context::poll(), since run() would wait.
    void hold() { is_holding_ = true; }
    /// Lets the oldest held call return; false when none waits.
    bool release_one();
    /// Lets all held calls return and holds no more.
    void release();
    std::size_t held() const { return held_.size(); }

    /// An SA is there that no call of install_set() made: of the process before.
    void add_sa(const xfrm::Sa& sa, Mark mark, AlgorithmPair algorithms, std::chrono::seconds hard_limit);
    /// An SA vanishes, as when its hard limit has expired; false when it was not there.
    bool lose(const xfrm::SaId& id) { return sas_.erase(id) != 0; }
    /// An SA of somebody else, so that an install meets EEXIST; dump() does not tell it.
    void add_foreign(const xfrm::SaId& id) { foreign_.insert(id); }
    /// Makes probe() report an algorithm as absent.
    void lack(AlgorithmPair pair) { lacking_.push_back(pair); }
    /// Changes what dump() tells, for an audit test (packet counts and so on); nullptr when the SA is not there.
    xfrm::SaReport* report_of(const xfrm::SaId& id);

    const std::map<xfrm::SaId, LiveSa>& sas() const { return sas_; }
    const std::set<xfrm::GuardPolicy>& policies() const { return policies_; }
    const std::vector<Call>& calls() const { return calls_; }
    std::size_t count(std::string_view name) const;

private:
    int message();
    Task<void> answer();
    int undo(const xfrm::SaId& id);
    Result<void> remove(const std::vector<xfrm::SaId>& ids);

    Clock real_clock_;
    const Clock* clock_;
    std::map<xfrm::SaId, LiveSa> sas_;
    std::map<xfrm::SaId, xfrm::SaReport> reports_;
    std::set<xfrm::SaId> foreign_;
    std::set<xfrm::GuardPolicy> policies_;
    std::vector<Call> calls_;
    std::map<std::uint64_t, int> failures_;
    std::vector<AlgorithmPair> lacking_;
    std::uint64_t messages_ = 0;
    bool is_holding_ = false;
    std::deque<std::move_only_function<void()>> held_;
    xfrm::KernelCounters counters_;
};

}  // namespace gmgate::test
