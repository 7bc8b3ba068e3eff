#include "xfrm/netlink/kernel.h"

#include <algorithm>
#include <cerrno>

#include <fmt/format.h>

#include "xfrm/algorithms.h"
#include "xfrm/netlink/refusal.h"

namespace gmgate::xfrm {
namespace {

// Before anything is sent: what the kernel would take without complaint and the gateway must not ask for.
Result<void> check(const SetRequest& request, const Ownership& owner) {
    const auto& p = request.parameters;
    const auto wrong = [](std::string text) { return failure(Reaction::internal, "not an SA set: " + text); };
    if (p.ue.family() != p.gateway.family()) return wrong("the addresses are of two families");
    if (p.ue.is_any() || p.gateway.is_any()) return wrong("an address is missing");
    for (const Port port : {p.port_uc, p.port_us, p.port_pc, p.port_ps})
        if (port == Port{}) return wrong("a port is missing");
    for (const Spi spi : {p.spi_uc, p.spi_us, p.spi_pc, p.spi_ps})
        if (spi == Spi{}) return wrong("an SPI is 0");
    if (p.spi_uc == p.spi_us || p.spi_pc == p.spi_ps) return wrong("two SAs of one direction share an SPI");
    if (!fits(p.algorithms, request.keys)) return wrong("the keys do not fit the algorithms");
    if (request.mark == Mark{} || (request.mark.value & ~owner.mark_mask) != 0)
        return wrong("the mark is 0 or outside of its mask");
    if (request.lifetime.count() <= 0) return wrong("the lifetime is not positive");
    if (p.inner && (p.mode != Mode::udp_enc_tun || p.inner->family() != p.ue.family() || p.inner->is_any()))
        return wrong("its inner address is none");
    return {};
}

void clear(EspKeys& keys) {
    keys.integrity.clear();
    keys.confidentiality.clear();
    keys.combined.clear();
}

bool is_broken(const Result<Answer>& answer) { return !answer && answer.error().reaction == Reaction::broken; }

}  // namespace

std::unexpected<Error> refusal(const Outcome& outcome, std::string what) {
    const bool is_passing = outcome.code == ENOMEM || outcome.code == ENOBUFS || outcome.code == EAGAIN;
    auto text = "the kernel refused " + std::move(what) + (outcome.text.empty() ? "" : ": " + outcome.text);
    return system_failure(is_passing ? Reaction::retry : Reaction::refused, std::move(text), outcome.code);
}

std::string describe(const Sa& sa) {
    return fmt::format("the SA {} {} -> {}, spi {:#010x}", sa.direction == Direction::in ? "in" : "out",
                       sa.source.to_string(), sa.destination.to_string(), sa.id.spi.value);
}

NetlinkKernel::NetlinkKernel(asio::any_io_executor executor, const Clock& clock, NetlinkSettings settings)
    : NetlinkKernel(executor, clock, settings, make_xfrm_socket(executor)) {}

NetlinkKernel::NetlinkKernel(asio::any_io_executor executor, const Clock& clock, NetlinkSettings settings,
                             std::unique_ptr<NetlinkSocket> socket)
    : executor_(executor),
      settings_(settings),
      clock_(clock),
      queue_(std::make_shared<NetlinkQueue>(
          executor, std::move(socket),
          NetlinkQueue::Settings{.patience = settings.patience, .memory = settings.memory})),
      nat_(settings.nat_blocks) {}

NetlinkKernel::~NetlinkKernel() { queue_->close(); }

const KernelCounters& NetlinkKernel::counters() const {
    counters_.requests = queue_->messages_sent();
    counters_.system_calls = queue_->system_calls();
    return counters_;
}

Task<Result<void>> NetlinkKernel::install_set(SetRequest request) {
    const StartingSequences from_the_beginning;
    co_return co_await install_set_at(std::move(request), from_the_beginning);
}

Task<Result<void>> NetlinkKernel::install_set_at(SetRequest request, StartingSequences sequences) {
    if (auto checked = check(request, settings_.owner); !checked) co_return checked;
    if (settings_.sa_limit != 0 && own_.size() + 4 > settings_.sa_limit)
        co_return failure(Reaction::exhausted, "no more SAs than configured");
    const bool is_settled = co_await settle_earlier();
    if (!is_settled) co_return failure(Reaction::broken, "the kernel does not tell what became of earlier SAs", EIO);

    const auto sas = four_sas(request.parameters, request.port_uenc);
    const auto inner = request.parameters.inner;
    if (request.parameters.mode == Mode::udp_enc_tun && !nat_.policy_for(sas[0]))
        co_return failure(Reaction::internal, "not an SA set: its ports are in no block for phones behind NAT");
    auto policies = policies_to_add(sas, inner);
    auto messages = buffer(sas.size() + policies.size());
    const std::array starts{sequences.in[0], sequences.out[0], sequences.in[1], sequences.out[1]};  // as in four_sas()
    for (std::size_t i = 0; i < sas.size(); ++i) {
        const NewSa new_sa{sas[i],   request.parameters.algorithms, request.keys, request.mark, request.lifetime,
                           starts[i]};
        if (!append_new_sa(messages, new_sa, settings_.owner))
            co_return failure(Reaction::internal, "NEWSA does not fit its buffer");
    }
    for (const auto& policy : policies) static_cast<void>(append_new_nat_policy(messages, policy, settings_.owner));
    for (const auto& sa : sas) nat_.add(sa, request.mark, inner);
    clear(request.keys);

    auto answer = co_await queue_->exchange(std::move(messages), NetlinkQueue::Place::back);
    if (!answer) {
        std::vector<Suspect> all;
        for (const auto& sa : sas) all.push_back({sa, request.mark});
        if (is_broken(answer)) static_cast<void>(co_await settle(std::move(all)));
        co_await leave_nat(sas);
        co_return std::unexpected(answer.error());
    }
    co_return co_await take_install_answer(sas, request.mark, std::move(policies), std::move(answer->outcomes));
}

// Four outcomes, and those of the policies for the NAT's address and the inner one. All or nothing.
Task<Result<void>> NetlinkKernel::take_install_answer(std::array<Sa, 4> sas, Mark mark, std::vector<NatPolicy> policies,
                                                      std::vector<Outcome> outcomes) {
    Result<void> result;
    const auto refused =
        std::ranges::find_if(outcomes.begin(), outcomes.begin() + 4, [](const Outcome& o) { return o.code != 0; });
    const auto index = static_cast<std::size_t>(refused - outcomes.begin());
    if (index < sas.size()) result = refusal(*refused, describe(sas[index]));
    for (std::size_t i = 0; i < policies.size(); ++i) {
        auto judged = co_await judge_nat_policy(policies[i], outcomes[sas.size() + i]);
        if (result) result = std::move(judged);
    }
    if (result) {
        ++counters_.sets_installed;
        if (settings_.deletes_only_own)
            for (const auto& sa : sas) own_[sa.id] = ports_of(sa);
        co_return result;
    }
    ++counters_.sets_refused;
    std::vector<Suspect> applied;
    for (std::size_t i = 0; i < sas.size(); ++i)
        if (outcomes[i].code == 0) applied.push_back({sas[i], mark});
    co_await undo_install(std::move(applied));
    co_await leave_nat(sas);
    co_return result;
}

// Deletes what a refused set left; these SAs are known to be ours because the kernel has just acknowledged them.
Task<void> NetlinkKernel::undo_install(std::vector<Suspect> applied) {
    if (applied.empty()) co_return;
    auto messages = buffer(applied.size());
    for (const auto& suspect : applied) static_cast<void>(append_delete_sa(messages, suspect.sa.id));
    const auto answer = co_await queue_->exchange(std::move(messages), NetlinkQueue::Place::front);
    std::vector<Suspect> left;
    for (std::size_t i = 0; i < applied.size(); ++i) {
        if (!answer || (answer->outcomes[i].code != 0 && answer->outcomes[i].code != ESRCH)) left.push_back(applied[i]);
        else ++counters_.rollbacks;
    }
    if (!left.empty()) static_cast<void>(co_await settle(std::move(left)));
}

// Asks for SAs by id and deletes those that are ours: same reqid, selector and mark. Another's SA under the same id
// (the reason of an EEXIST) stays. What cannot be settled now is kept for settle_earlier().
Task<bool> NetlinkKernel::settle(std::vector<Suspect> suspects) {
    auto questions = buffer(suspects.size());
    for (const auto& suspect : suspects) static_cast<void>(append_get_sa(questions, suspect.sa.id));
    const auto told = co_await queue_->exchange(std::move(questions), NetlinkQueue::Place::front);
    if (!told) {
        suspects_.insert(suspects_.end(), suspects.begin(), suspects.end());
        co_return false;
    }
    std::vector<Suspect> ours;
    std::vector<Suspect> unknown;
    for (std::size_t i = 0; i < suspects.size(); ++i) {
        const auto& outcome = told->outcomes[i];
        if (!outcome.sa && outcome.code != ESRCH) unknown.push_back(suspects[i]);
        if (!outcome.sa || outcome.sa->reqid != settings_.owner.reqid) continue;
        const auto& report = outcome.sa->report;
        if (is_same(report.sa, suspects[i].sa) && report.mark == suspects[i].mark) ours.push_back(suspects[i]);
    }
    auto deletions = buffer(ours.size());
    for (const auto& suspect : ours) static_cast<void>(append_delete_sa(deletions, suspect.sa.id));
    const auto answer = co_await queue_->exchange(std::move(deletions), NetlinkQueue::Place::front);
    for (std::size_t i = 0; i < ours.size(); ++i) {
        if (!answer || (answer->outcomes[i].code != 0 && answer->outcomes[i].code != ESRCH)) unknown.push_back(ours[i]);
        else ++counters_.rollbacks;
    }
    suspects_.insert(suspects_.end(), unknown.begin(), unknown.end());
    co_return unknown.empty();
}

Task<bool> NetlinkKernel::settle_earlier() {
    while (!suspects_.empty()) {
        const auto count = static_cast<std::ptrdiff_t>(std::min(suspects_.size(), NetlinkQueue::kBatchLimit));
        std::vector<Suspect> some(suspects_.begin(), suspects_.begin() + count);
        suspects_.erase(suspects_.begin(), suspects_.begin() + count);
        const bool is_settled = co_await settle(std::move(some));
        if (!is_settled) co_return false;
    }
    co_return true;
}

// For requests that may be repeated without harm: once more on a fresh socket when answers were lost.
Task<Result<Answer>> NetlinkKernel::exchange_twice(std::function<MessageBuffer()> make) {
    auto answer = co_await queue_->exchange(make(), NetlinkQueue::Place::back);
    if (is_broken(answer)) answer = co_await queue_->exchange(make(), NetlinkQueue::Place::front);
    co_return answer;
}

Task<Result<void>> NetlinkKernel::remove_set(SetParameters parameters) {
    const auto sas = four_sas(parameters);
    std::vector<SaId> ids;
    for (const auto& sa : sas) ids.push_back(sa.id);
    if (settings_.deletes_only_own) {
        std::vector<Sa> wanted(sas.begin(), sas.end());
        auto own = co_await own_of(std::move(wanted), true);
        if (!own) co_return std::unexpected(own.error());
        ids = std::move(*own);
    }
    auto removed = co_await delete_sas(std::move(ids));
    if (removed) ++counters_.sets_removed;
    co_return removed;
}

Task<Result<void>> NetlinkKernel::remove_sas(std::vector<SaId> ids) {
    if (settings_.deletes_only_own) {
        std::vector<Sa> wanted;
        for (const auto& id : ids) wanted.push_back({.id = id, .direction = {}, .source = {}, .destination = {}});
        auto own = co_await own_of(std::move(wanted), false);
        if (!own) co_return std::unexpected(own.error());
        ids = std::move(*own);
    }
    co_return co_await delete_sas(std::move(ids));
}

bool NetlinkKernel::is_own(const SaRecord& record) const {
    const auto mark = record.report.mark.value;
    return record.reqid == settings_.owner.reqid && mark != 0 && (mark & ~settings_.owner.mark_mask) == 0;
}

// Those that are ours. By id alone, one of somebody else refuses all; by selector, one with other ends or of somebody
// else is left out.
Task<Result<std::vector<SaId>>> NetlinkKernel::own_of(std::vector<Sa> sas, bool by_selector) {
    std::vector<SaId> own;
    std::vector<Sa> unknown;
    for (const auto& sa : sas) {
        const auto known = own_.find(sa.id);
        if (known == own_.end()) unknown.push_back(sa);
        else if (!by_selector || known->second == ports_of(sa)) own.push_back(sa.id);
    }
    for (std::size_t start = 0; start < unknown.size(); start += NetlinkQueue::kBatchLimit) {
        const auto part =
            std::span(unknown).subspan(start, std::min(unknown.size() - start, NetlinkQueue::kBatchLimit));
        const auto answer = co_await exchange_twice([this, part] { return questions(part); });
        if (!answer) co_return std::unexpected(answer.error());
        for (std::size_t i = 0; i < part.size(); ++i) {
            const auto& outcome = answer->outcomes[i];
            if (!outcome.sa && outcome.code == ESRCH) continue;
            if (!outcome.sa)
                co_return refusal(outcome, fmt::format("to tell of the SA to {}, spi {:#010x}",
                                                       part[i].id.destination.to_string(), part[i].id.spi.value));
            const bool is_ours = is_own(*outcome.sa);
            if (!is_ours && !by_selector)
                co_return failure(Reaction::refused,
                                  fmt::format("not allowed: the SA to {}, spi {:#010x}, is another's",
                                              part[i].id.destination.to_string(), part[i].id.spi.value),
                                  EPERM);
            if (!is_ours || (by_selector && !is_same(outcome.sa->report.sa, part[i]))) continue;
            own.push_back(part[i].id);
        }
    }
    co_return own;
}

Task<Result<void>> NetlinkKernel::delete_sas(std::vector<SaId> ids) {
    Result<void> result;
    // Each may be the last behind its NAT, and then a policy goes with it; one of an inner address goes with each.
    const std::size_t limit = nat_.are_used() ? NetlinkQueue::kBatchLimit / 3 : NetlinkQueue::kBatchLimit;
    for (std::size_t start = 0; start < ids.size(); start += limit) {
        const auto part = std::span(ids).subspan(start, std::min(ids.size() - start, limit));
        std::vector<NatPolicy> unneeded;
        for (const auto& id : part)
            for (const auto& policy : nat_.remove(id)) unneeded.push_back(policy);
        const auto answer = co_await exchange_twice([this, part, &unneeded] {
            auto messages = buffer(part.size() + unneeded.size());
            for (const auto& id : part) static_cast<void>(append_delete_sa(messages, id));
            for (const auto& policy : unneeded) static_cast<void>(append_delete_nat_policy(messages, policy));
            return messages;
        });
        if (!answer) co_return std::unexpected(answer.error());
        for (std::size_t i = 0; i < part.size(); ++i) {
            const auto& outcome = answer->outcomes[i];
            if (outcome.code == 0 || outcome.code == ESRCH) own_.erase(part[i]);
            if (outcome.code == 0 || outcome.code == ESRCH || !result) continue;
            const auto what =
                fmt::format("to delete the SA to {}, spi {:#010x}", part[i].destination.to_string(), part[i].spi.value);
            result = refusal(outcome, what);
        }
    }
    co_return result;
}

MessageBuffer NetlinkKernel::questions(std::span<const Sa> sas) const {
    auto messages = buffer(sas.size());
    for (const auto& sa : sas) static_cast<void>(append_get_sa(messages, sa.id));
    return messages;
}

Task<Result<std::vector<SaRecord>>> NetlinkKernel::find_set(SetParameters parameters) {
    const auto sas = four_sas(parameters);
    const auto answer = co_await exchange_twice([this, &sas] { return questions(sas); });
    if (!answer) co_return std::unexpected(answer.error());
    std::vector<SaRecord> found;
    for (std::size_t i = 0; i < sas.size(); ++i) {
        const auto& outcome = answer->outcomes[i];
        if (!outcome.sa) co_return refusal(outcome, "to tell of " + describe(sas[i]));
        const auto& told = *outcome.sa;
        if (told.reqid != settings_.owner.reqid || !is_same(told.report.sa, sas[i]))
            co_return failure(Reaction::refused, describe(sas[i]) + " is another's in the kernel", EEXIST);
        found.push_back(told);
    }
    co_return found;
}

// Sets the limits of all, or gives back those that had taken theirs.
Task<Result<void>> NetlinkKernel::limit_set(std::vector<SaRecord> found, std::vector<std::chrono::seconds> limits) {
    const auto updates = [this, &found](const std::vector<std::chrono::seconds>& values) {
        auto messages = buffer(found.size());
        for (std::size_t i = 0; i < found.size(); ++i)
            static_cast<void>(append_update_lifetime(messages, found[i].report.sa, values[i], settings_.owner));
        return messages;
    };
    const auto answer = co_await exchange_twice([&] { return updates(limits); });
    if (!answer) co_return std::unexpected(answer.error());
    const auto& outcomes = answer->outcomes;
    const auto first_refused = std::ranges::find_if(outcomes, [](const Outcome& o) { return o.code != 0; });
    if (first_refused == outcomes.end()) co_return Result<void>{};
    std::vector<std::chrono::seconds> earlier;
    for (const auto& record : found) earlier.push_back(record.report.hard_lifetime);
    static_cast<void>(co_await queue_->exchange(updates(earlier), NetlinkQueue::Place::front));
    const auto index = static_cast<std::size_t>(first_refused - outcomes.begin());
    co_return refusal(*first_refused, "a new lifetime of " + describe(found[index].report.sa));
}

Task<Result<void>> NetlinkKernel::extend_set(SetParameters parameters, std::chrono::seconds lifetime) {
    if (lifetime.count() <= 0) co_return failure(Reaction::internal, "a lifetime must be positive");
    std::optional<KeyedLock<SaId>::Guard> held;  // only these have something else that changes
    if (parameters.mode == Mode::udp_enc_tun) held.emplace(co_await changing_.acquire(key_of(parameters)));
    auto found = co_await find_set(parameters);
    if (!found) co_return std::unexpected(found.error());
    // The kernel counts from add_time in wall-clock seconds (kernel 6.1: xfrm_timer_handler, ktime_get_real_seconds).
    // After a step of that clock the age is what the kernel takes it for, below 0 after a step back; a limit of 0 would
    // mean none.
    std::vector<std::chrono::seconds> limits;
    const auto now = clock_.wall();
    for (const auto& record : *found) {
        const auto age = std::chrono::floor<std::chrono::seconds>(now - record.report.added);
        const auto limit = age + lifetime;
        limits.push_back(limit.count() > 0 ? limit : lifetime);
    }
    co_return co_await limit_set(std::move(*found), std::move(limits));
}

Task<Result<void>> NetlinkKernel::dump_each(std::function<void(SaReport)> each, std::function<void()> again) {
    const std::function<void(Reply&)> take = [this, &each](Reply& reply) {
        if (!reply.sa) return;
        auto& record = *reply.sa;
        if (record.reqid != settings_.owner.reqid || !record.is_known_kind) return;
        if (is_own(record)) nat_.add(record.report.sa, record.report.mark);
        if (settings_.deletes_only_own && is_own(record)) own_[record.report.sa.id] = ports_of(record.report.sa);
        each(std::move(record.report));
    };
    // The second try is for a dump that the kernel calls inconsistent, or whose answers were lost.
    Result<Answer> answer;
    for (int attempt = 0; attempt < 2; ++attempt) {
        if (attempt != 0) again();
        auto message = buffer(1);
        static_cast<void>(append_dump_sas(message));
        nat_.begin_list();
        answer = co_await queue_->dump(std::move(message), take);
        if (answer && answer->outcomes[0].code == 0) co_return co_await audit_nat_policies();
    }
    if (!answer) co_return std::unexpected(answer.error());
    co_return refusal(answer->outcomes[0], "a list of its SAs");
}

Task<Result<std::vector<SaReport>>> Kernel::dump() {
    std::vector<SaReport> reports;
    std::function<void(SaReport)> each = [&reports](SaReport report) { reports.push_back(std::move(report)); };
    std::function<void()> again = [&reports] { reports.clear(); };
    const auto told = co_await dump_each(std::move(each), std::move(again));
    if (!told) co_return std::unexpected(told.error());
    co_return reports;
}

Task<Result<KeyedSet>> NetlinkKernel::read_set(SetParameters parameters) {
    const auto sas = four_sas(parameters);
    KeyedSet keyed;
    std::array<bool, 4> is_told{};
    NetlinkQueue::Look look = [&](std::size_t place, std::span<const std::uint8_t> message) {
        auto secrets = place < sas.size() ? read_secrets(message) : std::nullopt;
        if (!secrets) return;
        is_told[place] = true;
        const bool is_outbound = sas[place].direction == Direction::out;
        (is_outbound ? keyed.sequences.out : keyed.sequences.in)[place / 2] =
            is_outbound ? secrets->sent : secrets->received;
        if (place == 0) keyed.keys = std::move(secrets->keys);  // the four share them (B-7)
    };
    auto asked = questions(sas);
    const auto answer = co_await queue_->exchange(std::move(asked), NetlinkQueue::Place::back, std::move(look));
    if (!answer) co_return std::unexpected(answer.error());
    for (std::size_t i = 0; i < sas.size(); ++i) {
        const auto& told = answer->outcomes[i].sa;
        if (!told || !is_own(*told) || !is_same(told->report.sa, sas[i]))
            co_return failure(Reaction::refused, describe(sas[i]) + " is not there as one of ours", ENOENT);
        if (!is_told[i])
            co_return failure(Reaction::refused, "the kernel does not tell keys: it is locked down for confidentiality",
                              EKEYREJECTED);
    }
    co_return keyed;
}

// NEWAE knows no reqid: only what is known as ours is moved.
Task<Result<void>> NetlinkKernel::move_set_to(SetParameters parameters, StartingSequences sequences) {
    const auto sas = four_sas(parameters);
    std::vector<Sa> wanted(sas.begin(), sas.end());
    const auto own = co_await own_of(std::move(wanted), true);
    if (!own) co_return std::unexpected(own.error());
    if (own->size() != sas.size())
        co_return failure(Reaction::refused, "the set of " + describe(sas[0]) + " is not there whole", ENOENT);
    const std::array starts{sequences.in[0], sequences.out[0], sequences.in[1], sequences.out[1]};  // as in four_sas()
    const auto answer = co_await exchange_twice([this, &sas, &starts] {
        auto messages = buffer(sas.size());
        for (std::size_t i = 0; i < sas.size(); ++i)
            static_cast<void>(append_move_sa(messages, sas[i], starts[i], settings_.owner));
        return messages;
    });
    if (!answer) co_return std::unexpected(answer.error());
    for (std::size_t i = 0; i < sas.size(); ++i)
        if (answer->outcomes[i].code == ESRCH)
            co_return failure(Reaction::refused, describe(sas[i]) + " is not there", ENOENT);
        else if (answer->outcomes[i].code != 0)
            co_return refusal(answer->outcomes[i], "other sequence numbers of " + describe(sas[i]));
    co_return Result<void>{};
}

Task<Result<std::vector<SaReport>>> NetlinkKernel::report_set(SetParameters parameters) {
    const auto sas = four_sas(parameters);
    const auto answer = co_await exchange_twice([this, &sas] { return questions(sas); });
    if (!answer) co_return std::unexpected(answer.error());
    std::vector<SaReport> reports;
    for (std::size_t i = 0; i < sas.size(); ++i) {
        const auto& told = answer->outcomes[i].sa;
        if (!told || told->reqid != settings_.owner.reqid || !is_same(told->report.sa, sas[i])) continue;
        reports.push_back(told->report);
        reports.back().sa.direction = sas[i].direction;
    }
    co_return reports;
}

}  // namespace gmgate::xfrm
