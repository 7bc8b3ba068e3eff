// A phone that lost its memory counts its SPIs from the beginning again. The kernel takes no second outbound SA with
// the same destination and SPI (with other marks it does, but the guard policies would never choose it), so the
// newcomer's set stands with stand-ins for the phone's two SPIs until it has proved itself, and four SAs are a set at
// any time.
#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/random.h"
#include "daemon/registrations/sa_sets.h"

namespace gmgate::daemon {
namespace {

// From 0x10000000 up: phones that count do not get there.
Spi stand_in(Spi other) {
    for (;;) {
        const Spi spi{static_cast<std::uint32_t>(random_u64()) | 0x10000000U};
        if (spi != other) return spi;
    }
}

}  // namespace

std::vector<SetNumber> SaSets::holders_of(const Address& ue, Spi spi_uc, Spi spi_us) const {
    std::vector<SetNumber> found;
    table_.for_each_set_at(ue, [&](const SaSet& set) {
        const auto& p = set.parameters;
        if (p.spi_uc == spi_uc || p.spi_uc == spi_us || p.spi_us == spi_uc || p.spi_us == spi_us)
            found.push_back(set.number);
    });
    return found;
}

std::vector<SetNumber> SaSets::holders_from(SetNumber waiting) const {
    const auto at = waiting_.find(waiting);
    const auto* set = at == waiting_.end() ? nullptr : table_.find_set(waiting).set;
    return set ? holders_of(set->parameters.ue, at->second.spi_uc, at->second.spi_us) : std::vector<SetNumber>{};
}

Task<Result<std::unique_ptr<SaSet>>> SaSets::install_waiting(std::unique_ptr<SaSet> set, xfrm::EspKeys keys,
                                                             xfrm::EspKeys later) {
    Waiting waiting{set->parameters.spi_uc, set->parameters.spi_us, std::move(later)};
    set->parameters.spi_uc = stand_in(Spi{});
    set->parameters.spi_us = stand_in(set->parameters.spi_uc);
    auto installed = co_await install(std::move(set), std::move(keys));
    if (installed) waiting_.emplace((*installed)->number, std::move(waiting));
    co_return installed;
}

// The kernel installs sets of four. So the phone's two outbound SAs come with two inbound ones under fresh SPIs, which
// go again at once together with the stand-ins: what stays is what install() makes.
Task<Result<void>> SaSets::take_spis(SetNumber number) {
    auto waiting = waiting_.extract(number);
    const auto* set = table_.find_set(number).set;
    if (waiting.empty() || !set) co_return failure(Reaction::broken, "the set of SAs ended");
    auto whole = set->parameters;
    whole.spi_uc = waiting.mapped().spi_uc;
    whole.spi_us = waiting.mapped().spi_us;
    const auto spare = spis_.take(whole.spi_uc, whole.spi_us);
    if (!spare) co_return std::unexpected(spare.error());
    auto added = whole;
    added.spi_pc = spare->spi_pc;
    added.spi_ps = spare->spi_ps;
    auto superfluous = set->parameters;
    superfluous.spi_pc = spare->spi_pc;
    superfluous.spi_ps = spare->spi_ps;
    const auto port_uenc = set->port_uenc;
    const auto lifetime = left_until(set->expires) + config_.timers.kernel_margin;
    const auto limit = clock_.wall() + lifetime;
    xfrm::SetRequest request{.parameters = added,
                             .keys = std::move(waiting.mapped().keys),
                             .mark = Mark{number.value},
                             .lifetime = lifetime,
                             .port_uenc = port_uenc};
    const auto installed = co_await kernel_.install_set(std::move(request));
    if (!installed) {
        counters_.add(Counter::sa_add_failed);
        spis_.release(*spare);
        co_return std::unexpected(installed.error());
    }
    counters_.add(Counter::sa_added);
    auto* still = table_.find_set(number).set;
    if (!still) {  // remove() took it as it was
        co_await remove_parts(std::move(added));
        co_return failure(Reaction::broken, "the set of SAs ended while it got the phone's SPIs");
    }
    still->parameters = whole;
    still->kernel_limit = std::min(still->kernel_limit, limit);  // the inbound SAs stay what they were
    co_await remove_parts(std::move(superfluous));
    // A port that its NAT gave it meanwhile is set on the SAs that were there; the new ones are not told of again.
    still = table_.find_set(number).set;
    if (still && still->is_behind_nat() && still->port_uenc != port_uenc)
        co_return co_await kernel_.follow_nat(whole, still->port_uenc);
    co_return Result<void>{};
}

Task<void> SaSets::remove_parts(xfrm::SetParameters parts) {
    const auto removed = co_await kernel_.remove_set(parts);
    if (!removed) {
        log::error("sa-remove-failed", {{"ue", parts.ue.to_string()}, {"reason", removed.error().text}});
        leftovers_.push_back(parts);
        co_return;
    }
    counters_.add(Counter::sa_deleted);
    spis_.release({parts.spi_pc, parts.spi_ps});
}

void SaSets::heard_datagram(SetNumber number) {
    const auto at = waiting_.find(number);
    if (at != waiting_.end()) at->second.has_heard = true;
}

Task<bool> SaSets::wants_connection(SetNumber number) {
    const auto* set = table_.find_set(number).set;
    if (!set || !waiting_.contains(number)) co_return false;
    const auto parameters = set->parameters;
    const auto reports = co_await kernel_.report_set(parameters);
    const auto at = waiting_.find(number);
    if (!reports || at == waiting_.end() || at->second.has_heard) co_return false;
    for (const auto& report : *reports)
        if (report.sa.id.destination == parameters.gateway && report.packets != 0) co_return true;
    co_return false;
}

}  // namespace gmgate::daemon
