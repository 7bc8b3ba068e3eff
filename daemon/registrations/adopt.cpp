#include "daemon/registrations/adopt.h"

#include <algorithm>
#include <bit>
#include <utility>

#include <fmt/format.h>

#include "base/log.h"

namespace gmgate::daemon {
namespace {

constexpr std::uint8_t kAllFour = 0b1111;
// A limit of the kernel may be short of ours by the seconds that both round to.
constexpr std::chrono::seconds kRounding{2};

}  // namespace

void Adoption::add(StoredRegistration row) {
    ++summary_.rows;
    const auto index = candidates_.size();
    for (std::size_t i = 0; i < row.sets.size(); ++i)
        places_[row.sets[i].number.value] = {.candidate = index, .set = i};
    candidates_.push_back({std::move(row)});
}

// Our reqid is a number that anyone can use: only with a mark of ours is an SA ours to delete (charon's have none).
bool Adoption::is_ours(const xfrm::SaReport& report) const {
    if (report.mark.value == 0 || (report.mark.value & ~p_.config.xfrm.mark_mask) != 0) return false;
    if (report.sa.direction == xfrm::Direction::out) return true;  // the phone chose that SPI
    return report.sa.id.spi >= p_.config.xfrm.spi_start && report.sa.id.spi <= p_.config.xfrm.spi_end;
}

void Adoption::see(const xfrm::SaReport& report) {
    const auto at = places_.find(report.mark.value);
    if (at != places_.end()) {
        auto& place = at->second;
        const auto& set = candidates_[place.candidate].row.sets[place.set];
        const auto four = xfrm::four_sas(set.parameters);
        for (std::size_t i = 0; i < four.size(); ++i) {
            const auto& sa = four[i];
            if (sa.id != report.sa.id || sa.direction != report.sa.direction || !is_same(report.sa, sa)) continue;
            if (report.algorithms != set.parameters.algorithms) break;
            const auto limit = report.added + report.hard_lifetime;
            place.limit = place.seen == 0 ? limit : std::min(place.limit, limit);
            place.seen = static_cast<std::uint8_t>(place.seen | (1U << i));
            if (report.sa.encapsulation && report.sa.direction == xfrm::Direction::out)
                place.port_uenc = report.sa.encapsulation->destination;
            return;
        }
    }
    if (is_ours(report)) stale_.push_back(report.sa.id);
    else ++summary_.foreign;
}

// Why a set of a row cannot live on although its SAs may be there; nullopt when it can.
std::optional<std::string> Adoption::obstacle(const StoredSet& set) const {
    if (set.expires <= p_.clock.now()) return "it ran out while the gateway was away";
    const auto& p = set.parameters;
    if (!p_.accesses.is_protected({p.gateway, p.port_ps}) || !p_.accesses.is_protected({p.gateway, p.port_pc}))
        return fmt::format("the configuration has no protected ports {} and {} at {} any more", p.port_ps.value,
                           p.port_pc.value, p.gateway.to_string());
    return std::nullopt;
}

Task<Result<void>> Adoption::match_kernel() {
    std::function<void(xfrm::SaReport)> each = [this](xfrm::SaReport report) { see(report); };
    std::function<void()> again = [this] {
        stale_.clear();
        summary_.foreign = 0;
        for (auto& [mark, place] : places_) place.seen = 0;
    };
    if (auto told = co_await p_.kernel.dump_each(std::move(each), std::move(again)); !told) co_return told;
    std::vector<Place> to_extend;
    for (auto& [mark, place] : places_) {
        auto& candidate = candidates_[place.candidate];
        const auto& set = candidate.row.sets[place.set];
        const auto why = obstacle(set);
        if (place.seen == kAllFour && !why) {
            const auto wanted = std::chrono::duration_cast<std::chrono::seconds>(set.expires - p_.clock.now());
            if (place.limit + kRounding < p_.clock.wall() + wanted) {
                to_extend.push_back(place);
                place.limit = {};  // whatever comes of it: the next refresh asks
            }
            continue;
        }
        const auto four = xfrm::four_sas(set.parameters);
        for (std::size_t i = 0; i < four.size(); ++i)
            if ((place.seen & (1U << i)) != 0) stale_.push_back(four[i].id);
        log::info(
            "set-not-adopted",
            {{"impi", candidate.row.key.impi.value},
             {"set", mark},
             {"sas-in-kernel", std::popcount(place.seen)},
             {"why",
              why ? *why : "some of its four SAs are gone from the kernel (expired, flushed or deleted by someone)"}});
        candidate.has_lost_a_set = true;
        place.seen = 0;
    }
    for (const auto& place : to_extend) {  // the wall clock was set back or forth: the kernel counts by it
        const auto& set = candidates_[place.candidate].row.sets[place.set];
        const auto extended = co_await p_.sets.extend(set.number, set.parameters, set.expires);
        if (!extended) log::warning("set-not-extended", {{"set", set.number.value}, {"reason", extended.error().text}});
    }
    summary_.sas_removed = stale_.size();
    if (stale_.empty()) co_return Result<void>{};
    p_.counters.add(Counter::stale_sas_removed, stale_.size());
    auto stale = std::exchange(stale_, {});
    co_return co_await p_.kernel.remove_sas(std::move(stale));
}

Task<Result<void>> Adoption::believe() {
    std::vector<xfrm::SaId> unwanted;
    for (auto& [mark, place] : places_) {
        auto& candidate = candidates_[place.candidate];
        const auto& set = candidate.row.sets[place.set];
        place.port_uenc = set.port_uenc;
        const auto why = obstacle(set);
        if (!why) {
            place.seen = kAllFour;
            continue;
        }
        for (const auto& sa : xfrm::four_sas(set.parameters)) unwanted.push_back(sa.id);
        log::info("set-not-adopted", {{"impi", candidate.row.key.impi.value}, {"set", mark}, {"why", *why}});
        candidate.has_lost_a_set = true;
    }
    if (unwanted.empty()) co_return Result<void>{};
    co_return co_await p_.kernel.remove_sas(std::move(unwanted));
}

void Adoption::drop(const StoredRegistration& row, std::string_view why) {
    ++summary_.dropped;
    dropped_.push_back(row.key);
    p_.counters.add(Counter::registrations_not_adopted);
    log::info("registration-not-adopted", {{"impi", row.key.impi.value}, {"why", why}});
}

void Adoption::commit(const std::function<std::optional<sip::Flow>(sip::ConnectionId)>& flow_of) {
    for (auto& candidate : candidates_) {
        const auto& row = candidate.row;
        auto registration = to_registration(row);
        for (const auto& stored : row.sets) {
            p_.table.continue_numbers_after(stored.number);
            const auto& place = places_[stored.number.value];
            if (place.seen != kAllFour || &candidates_[place.candidate] != &candidate) continue;
            auto set = to_set(stored);
            if (!set || !p_.spis.adopt((*set)->own_spis()))
                continue;  // two rows with one SPI: the second was tampered with
            (*set)->kernel_limit = place.limit;
            if (place.port_uenc != Port{}) (*set)->port_uenc = place.port_uenc;
            registration->sets.push_back(std::move(*set));
        }
        if (row.tls) {
            const auto flow = flow_of(row.tls->connection);
            auto binding = flow ? to_binding(*row.tls, *flow) : failure(Reaction::broken, "");
            if (!binding || row.expires <= p_.clock.now()) {
                drop(row, flow ? "it ran out while the gateway was away"
                               : "its TLS connection was not handed over by the process before");
                continue;
            }
            auto& added = p_.table.add(std::move(registration));
            p_.table.bind(added, std::move(*binding));
            p_.expiry.watch(added, added.first_end());
            ++summary_.registrations;
            continue;
        }
        if (registration->sets.empty()) {
            drop(row, row.sets.empty() ? "it had no set of SAs" : "none of its sets of SAs is whole in the kernel");
            continue;
        }
        summary_.sets += registration->sets.size();
        auto& added = p_.table.add(std::move(registration));
        p_.expiry.watch(added, added.first_end());
        for (const auto& set : added.sets) {
            const bool hands_over = set->state == SetState::old && set->in_use;  // as in settle_sets()
            p_.expiry.watch(set->number, hands_over ? set->expires - p_.config.timers.old_set : set->expires);
        }
        if (candidate.has_lost_a_set) p_.table.changed(added.key);
        ++summary_.registrations;
    }
    candidates_.clear();
    places_.clear();
    p_.counters.add(Counter::registrations_adopted, summary_.registrations);
}

}  // namespace gmgate::daemon
