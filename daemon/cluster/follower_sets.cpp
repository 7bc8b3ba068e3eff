// What the follower does to its kernel: sets installed, moved on, removed, and looked at.
#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/log.h"
#include "daemon/cluster/follower.h"

namespace gmgate::daemon {
namespace {

using namespace std::chrono_literals;

constexpr auto kLonger = 2s;  // that is worth a word to the kernel

/// The same SAs in the kernel: nothing but their numbers and lifetime may have changed.
bool is_same_set(const StoredSet& a, const StoredSet& b) {
    return a.parameters == b.parameters && a.number == b.number && a.port_uenc == b.port_uenc;
}

const StoredSet* find_same(const std::vector<StoredSet>& sets, const StoredSet& wanted) {
    const auto at = std::ranges::find_if(sets, [&](const StoredSet& set) { return is_same_set(set, wanted); });
    return at == sets.end() ? nullptr : &*at;
}

}  // namespace

// Those of its sets that the kernel does not take leave the row.
Task<void> Follower::hold(std::string field, ClusterRecord record) {
    auto& held = held_[field];  // nobody else works on this field, and elements of a map stay where they are
    held.round = round_;
    const auto epoch = next_epoch();
    co_await remove_others(held, record.row);
    std::vector<StoredSet> standing;
    bool is_refused = false;
    for (std::size_t i = 0; i < record.row.sets.size(); ++i) {
        const auto& set = record.row.sets[i];
        const auto left = std::chrono::duration_cast<seconds>(set.expires - p_.clock.now());
        if (left <= 0s) continue;
        xfrm::SealedInstall order{.parameters = set.parameters,
                                  .keys = record.seals[i],
                                  .record = record.digest,
                                  .epoch = epoch,
                                  .mark = Mark{set.number.value},
                                  .lifetime = left + p_.config.timers.kernel_margin,
                                  .port_uenc = set.port_uenc};
        const auto before = had(held, set);
        Result<void> done;
        if (before) done = co_await move(std::move(order), set.expires > before->expires + kLonger);
        else done = co_await install(std::move(order));
        if (done) {
            by_mark_[set.number.value] = field;
            standing.push_back(set);
        } else {
            is_refused = true;
            refuse(field, done.error().text);
        }
    }
    if (!is_refused) unopened_.erase(field);
    held.row = std::move(record.row);
    held.row.sets = std::move(standing);
    held.challenge = std::move(record.challenge);
    held.epoch = epoch;
    if (held.row.sets.empty()) held_.erase(field);
}

// The set as it is in the kernel already: of this record, or of the challenge that has become this registration.
std::optional<StoredSet> Follower::had(Held& held, const StoredSet& set) {
    if (const auto* same = find_same(held.row.sets, set)) return *same;
    const auto owner = by_mark_.find(set.number.value);
    const auto other = owner == by_mark_.end() ? held_.end() : held_.find(owner->second);
    const auto* same = other == held_.end() ? nullptr : find_same(other->second.row.sets, set);
    if (!same) return std::nullopt;
    auto moved = *same;
    std::erase_if(other->second.row.sets, [&](const StoredSet& one) { return is_same_set(one, moved); });
    return moved;
}

Task<Result<void>> Follower::install(xfrm::SealedInstall order) {
    auto again = order;
    auto done = co_await p_.sealing.install_sealed(std::move(order));
    if (!done && done.error().code == EEXIST) {  // an engine that died amid it, or what could not be removed before
        co_await remove(again.parameters);
        done = co_await p_.sealing.install_sealed(std::move(again));
    }
    if (done) ++numbers_.installed;
    co_return done;
}

Task<Result<void>> Follower::move(xfrm::SealedInstall order, bool is_longer) {
    auto again = order;
    const auto parameters = order.parameters;
    const auto lifetime = order.lifetime;
    auto done = co_await p_.sealing.move_sealed(std::move(order));
    if (!done && done.error().code == ENOENT) co_return co_await install(std::move(again));
    if (!done) co_return done;
    ++numbers_.moved;
    if (is_longer) done = co_await p_.kernel.extend_set(parameters, lifetime);
    co_return done;
}

Task<void> Follower::remove_others(Held& held, const StoredRegistration& now) {
    std::vector<StoredSet> gone;
    std::erase_if(held.row.sets, [&](const StoredSet& set) {
        const auto* same = find_same(now.sets, set);
        if (same && same->expires > p_.clock.now() + 1s) return false;
        gone.push_back(set);
        return true;
    });
    for (const auto& set : gone) {
        by_mark_.erase(set.number.value);
        co_await remove(set.parameters);
    }
}

Task<void> Follower::remove(xfrm::SetParameters parameters) {
    const auto done = co_await p_.kernel.remove_set(parameters);
    if (done) ++numbers_.removed;
    else leftovers_.push_back(parameters);
}

Task<void> Follower::remove_leftovers() {
    for (auto& parameters : std::exchange(leftovers_, {})) co_await remove(parameters);
}

Task<void> Follower::end(std::string field) {
    unopened_.erase(field);
    const auto at = held_.find(field);
    if (at == held_.end()) co_return;
    const auto held = std::move(at->second);
    held_.erase(at);
    for (const auto& set : held.row.sets) {
        by_mark_.erase(set.number.value);
        co_await remove(set.parameters);
    }
}

Task<void> Follower::end_unseen() {
    std::vector<std::string> unseen;
    for (const auto& [field, held] : held_)
        if (held.round != round_) unseen.push_back(field);
    for (auto& field : unseen) co_await end(std::move(field));
}

void Follower::heard(const xfrm::KernelEvent& event) {
    using Kind = xfrm::KernelEvent::Kind;
    if (is_stopped_ || held_.empty()) return;
    if (event.kind == Kind::sas_flushed || event.kind == Kind::events_lost) {
        for (const auto& [field, held] : held_) doubtful_.insert(field);
    } else if (event.kind == Kind::hard_expired || event.kind == Kind::sa_deleted) {
        const auto at = by_mark_.find(event.mark.value);
        if (at != by_mark_.end()) doubtful_.insert(at->second);
    }
}

// Within a second of the event. What is missing is forgotten and read again.
Task<bool> Follower::look_again() {
    std::vector<std::string> missing;
    for (const auto& field : std::exchange(doubtful_, {})) {
        const auto at = held_.find(field);
        if (at == held_.end()) continue;
        const auto sets = at->second.row.sets;
        for (const auto& set : sets) {
            const auto told = co_await p_.kernel.report_set(set.parameters);
            if (told && told->size() == 4) continue;
            std::erase_if(at->second.row.sets, [&](const StoredSet& one) { return is_same_set(one, set); });
            co_await remove(set.parameters);
            missing.push_back(field);
        }
    }
    if (!missing.empty())
        log::warning("cluster-sets-missing", {{"sets", missing.size()},
                                              {"why", "somebody else deleted SAs that are held for a take-over"},
                                              {"now", "they are installed again"}});
    co_return co_await read_records(std::move(missing));
}

}  // namespace gmgate::daemon
