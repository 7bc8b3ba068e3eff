#include "daemon/registrations/kernel_watch.h"

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include <asio/redirect_error.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>

#include "base/log.h"
#include "base/slice.h"
#include "base/spawn.h"

namespace gmgate::daemon {
namespace {

constexpr std::chrono::seconds kTryAgain{1};  // when the kernel refuses a dump or a guard

bool owns(const SaSet& set, const xfrm::SaId& id) {
    const auto sas = xfrm::four_sas(set.parameters);
    return std::ranges::any_of(sas, [&](const xfrm::Sa& sa) { return sa.id == id; });
}

/// What the kernel told. Neither growing nor ending it takes long at once, as it would with a node or one block for
/// all.
class KnownSas {
public:
    void add(const xfrm::SaId& id) { bucket(id).push_back(id); }
    bool contains(const xfrm::SaId& id) { return std::ranges::find(bucket(id), id) != bucket(id).end(); }
    void clear() {
        for (auto& bucket : buckets_) bucket.clear();
    }

private:
    std::vector<xfrm::SaId>& bucket(const xfrm::SaId& id) { return buckets_[id.spi.value % buckets_.size()]; }
    std::vector<std::vector<xfrm::SaId>> buckets_{4096};
};

}  // namespace

KernelWatch::KernelWatch(asio::any_io_executor executor, const AccessMap& accesses, Table& table, SaSets& sets,
                         xfrm::Kernel& kernel, Counters& counters)
    : executor_(std::move(executor)),
      accesses_(accesses),
      table_(table),
      sets_(sets),
      kernel_(kernel),
      counters_(counters) {}

void KernelWatch::event(const xfrm::KernelEvent& event) {
    using Kind = xfrm::KernelEvent::Kind;
    const auto live = [&]() -> SaSet* {  // the event's set, when it is wanted still
        auto* set = table_.find_set(SetNumber{event.mark.value}).set;
        return set && owns(*set, event.sa) ? set : nullptr;
    };
    switch (event.kind) {
        case Kind::soft_expired:
            if (const auto* set = live()) spawn(executor_, extend(set->number), "extend");
            return;
        case Kind::hard_expired:
            if (const auto* set = live())
                spawn(executor_, set_lost(set->number, "the kernel says that its lifetime is over, before ours was"),
                      "set_lost");
            return;
        case Kind::sa_deleted:
            if (const auto* set = live())
                spawn(executor_, set_lost(set->number, "somebody else deleted an SA of it"), "set_lost");
            return;
        case Kind::sas_flushed:
            return want_audit("somebody else flushed the SAs of this network namespace");
        case Kind::policy_deleted:
            if (is_guard(event.guard)) guards_gone("somebody else deleted a guard policy");
            return;
        case Kind::policy_replaced:
            if (is_guard(event.guard)) guards_gone("somebody else replaced a guard policy");
            return;
        case Kind::policies_flushed:
            return guards_gone("somebody else flushed the policies of this network namespace");
        case Kind::events_lost:
            counters_.add(Counter::kernel_events_lost);
            // Also after a restart of the engine. Nothing is known to be missing: what has to be sent is sent while the
            // guards are looked at, for an answer that does not leave now is lost to a phone on TCP.
            guards_wanted_ = true;
            want_audit("events of the kernel were lost");
            return;
        case Kind::mapping_changed:
            return mapping_changed(event);
        case Kind::nat_policy_deleted:
            return;  // the kernel object installs it again
    }
}

// Something authentic came from another outer address or port. Its set is found by what the kernel had: few are at one
// address.
void KernelWatch::mapping_changed(const xfrm::KernelEvent& event) {
    SetNumber number{};
    table_.for_each_set_at(event.before.address, [&](const SaSet& set) {
        const auto& p = set.parameters;
        if (set.is_behind_nat() && p.gateway == event.sa.destination &&
            (p.spi_ps == event.sa.spi || p.spi_pc == event.sa.spi))
            number = set.number;
    });
    if (number == SetNumber{}) return;
    if (event.now.address == event.before.address)
        return spawn(executor_, follow_nat(number, event.now.port), "follow_nat");
    nat_moved(number, event.now);
}

// The phone's other sets go through the same port of its NAT.
Task<void> KernelWatch::follow_nat(SetNumber number, Port port_uenc) {
    const auto owner = table_.find_set(number);
    if (!owner.set) co_return;
    std::vector<SetNumber> numbers{number};
    std::optional<ContactKey> key;
    if (owner.registration) {
        key.emplace(owner.registration->key);
        for (const auto& set : owner.registration->sets)
            if (set->number != number && set->parameters.ue == owner.set->parameters.ue) numbers.push_back(set->number);
    }
    for (const auto one : numbers) {
        const auto followed = co_await sets_.follow_nat(one, port_uenc);
        if (!followed)
            log::warning("nat-not-followed",
                         {{"set", one.value}, {"port", port_uenc.value}, {"reason", followed.error().text}});
    }
    if (key && table_.find(*key)) table_.changed(*key);
}

// Annex M knows no such move. Whoever replays from elsewhere what he caught would draw the phone's traffic to himself,
// so the set ends: the phone, which gets no answers, registers anew.
void KernelWatch::nat_moved(SetNumber number, const Endpoint& now) {
    const auto owner = table_.find_set(number);
    counters_.add(Counter::nat_moved);
    const auto& impi = owner.challenge ? owner.challenge->impi : owner.registration->key.impi;
    if (nat_moved_) nat_moved_(impi, *owner.set, now);
    spawn(executor_, set_lost(number, "nat-moved: its phone's packets come from " + now.to_string() + " now"),
          "set_lost");
}

bool KernelWatch::is_guard(const xfrm::GuardPolicy& policy) const { return accesses_.is_protected(policy.gateway); }

void KernelWatch::want_audit(const char* why) {
    log::warning("kernel-audit", {{"sets", table_.set_count()}, {"why", why}});
    audit_wanted_ = true;
    start_if_idle();
}

void KernelWatch::look() {
    audit_wanted_ = true;
    start_if_idle();
}

void KernelWatch::guards_gone(const char* why) {
    guards_wanted_ = true;
    if (!std::exchange(guards_missing_, true))
        log::error("guards-missing", {{"why", why}, {"until", "they stand again nothing leaves a protected port"}});
    start_if_idle();
}

void KernelWatch::start_if_idle() {
    if (std::exchange(is_running_, true)) return;
    spawn_lasting(
        executor_, [this] { return run(); }, "kernel_watch");
}

// One at a time, guards first; what the kernel refuses is tried again until it is done.
Task<void> KernelWatch::run() {
    asio::steady_timer timer(executor_);
    while (audit_wanted_ || guards_wanted_) {
        Result<void> done;
        if (guards_wanted_) {
            done = co_await restore_guards();
        } else {
            audit_wanted_ = false;
            done = co_await audit();
            if (!done) audit_wanted_ = true;
        }
        if (done) continue;
        log::error("kernel-audit-failed", {{"reason", done.error().text}, {"why", "it is tried again"}});
        timer.expires_after(kTryAgain);
        asio::error_code stopped;
        co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, stopped));
        if (stopped) break;
    }
    is_running_ = false;
}

Task<Result<void>> KernelWatch::restore_guards() {
    auto requests = accesses_.guard_requests();
    for (auto& request : requests) {
        if (auto ok = co_await kernel_.install_guards(std::move(request)); !ok) {
            guards_missing_ = true;
            co_return ok;
        }
    }
    guards_wanted_ = false;
    if (!std::exchange(guards_missing_, false)) co_return Result<void>{};
    counters_.add(Counter::guards_restored);
    log::notice("guards-restored", {{"addresses", requests.size()}});
    co_return Result<void>{};
}

namespace {

/// A set as the dump may tell it. One that takes its phone's own SPIs meanwhile (registrations/waiting_spis.cpp) is
/// told by those which it had, and nothing can be said of it.
struct Audited {
    SetNumber number;
    Spi spi_uc, spi_us;
};

Audited audited(const SaSet& set) { return {set.number, set.parameters.spi_uc, set.parameters.spi_us}; }

}  // namespace

// A quarter of a million SAs are told while phones are served, and are looked up so.
Task<Result<void>> KernelWatch::audit() {
    std::vector<Audited> known;  // those that come later may be missing in the dump
    known.reserve(table_.set_count());
    std::function<void(Registration&)> registered = [&known](Registration& registration) {
        for (const auto& set : registration.sets) known.push_back(audited(*set));
    };
    co_await table_.walk(std::move(registered));
    std::function<void(Challenge&)> challenged = [&known](Challenge& challenge) {
        known.push_back(audited(*challenge.set));
    };
    co_await table_.walk_challenges(std::move(challenged));
    KnownSas present;
    std::function<void(xfrm::SaReport)> each = [&present](xfrm::SaReport report) { present.add(report.sa.id); };
    std::function<void()> again = [&present] { present.clear(); };
    const auto told = co_await kernel_.dump_each(std::move(each), std::move(again));
    if (!told) co_return std::unexpected(told.error());
    Slice slice;
    std::size_t lost = 0;
    for (const auto& [number, spi_uc, spi_us] : known) {
        if (slice.is_over()) co_await slice.pause();
        const auto* set = table_.find_set(number).set;
        if (!set || set->parameters.spi_uc != spi_uc || set->parameters.spi_us != spi_us) continue;
        const auto sas = xfrm::four_sas(set->parameters);
        if (std::ranges::all_of(sas, [&](const xfrm::Sa& sa) { return present.contains(sa.id); })) continue;
        ++lost;
        co_await set_lost(number, "its SAs are missing in the kernel");
    }
    log::notice("kernel-audited", {{"sets", known.size()}, {"lost", lost}});
    co_return Result<void>{};
}

// Only our own timers end a set; a soft limit is a reminder that the kernel's is nearer than ours, as after a step of
// the clock.
Task<void> KernelWatch::extend(SetNumber number) {
    const auto* set = table_.find_set(number).set;
    if (!set) co_return;
    const auto parameters = set->parameters;
    const auto extended = co_await sets_.extend(number, parameters, set->expires);
    if (!extended) log::warning("sa-extend-failed", {{"set", number.value}, {"reason", extended.error().text}});
}

Task<void> KernelWatch::set_lost(SetNumber number, std::string why) {
    const auto owner = table_.find_set(number);
    if (!owner.set) co_return;  // four events, one set
    counters_.add(Counter::sa_lost);
    const auto& impi = owner.challenge ? owner.challenge->impi : owner.registration->key.impi;
    log::warning("sa-lost", {{"impi", impi.value},
                             {"ue", owner.set->parameters.ue.to_string()},
                             {"set", number.value},
                             {"state", to_string(owner.set->state)},
                             {"why", why}});
    std::unique_ptr<SaSet> set;
    if (owner.challenge) {
        const auto key = owner.challenge->key();
        set = std::move(table_.take_challenge(key)->set);
    } else {
        auto& registration = *owner.registration;
        set = table_.take_set(registration, number);
        ++registration.generation;
        if (registration.sets.empty()) {
            if (!registration.ended)
                log::notice("registration-ended", {{"impi", registration.key.impi.value},
                                                   {"set", number.value},
                                                   {"why", why + "; the phone must register again"}});
            table_.take(ContactKey{registration.key});
        } else if (set->in_use) {
            registration.sets.back()->in_use = true;  // the newest one carries outbound traffic from now on
            table_.changed(registration.key);
        }
    }
    co_await sets_.remove(std::move(set));
}

void KernelWatch::address_changed(const Address& address, bool is_usable, const std::string& why) {
    if (is_usable) {
        table_.resume(address);
    } else {
        table_.suspend(address);
        counters_.add(Counter::address_lost);
    }
    spawn(executor_, tell_address(address, is_usable, why), "tell_address");
}

// Counting all takes longer than a turn may.
Task<void> KernelWatch::tell_address(Address address, bool is_usable, std::string why) {
    std::size_t registrations = 0;
    co_await table_.walk([&](const Registration& registration) {
        const auto ours = registration.reached_at();
        if (ours && ours->address == address) ++registrations;
    });
    if (is_usable)
        log::notice("access-address-back", {{"address", address.to_string()}, {"registrations", registrations}});
    else
        log::error("access-address-gone",
                   {{"address", address.to_string()}, {"registrations", registrations}, {"why", why}});
}

}  // namespace gmgate::daemon
