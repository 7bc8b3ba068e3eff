#include "daemon/registrations/sa_sets.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/random.h"

namespace gmgate::daemon {
namespace {

// A limit that lies further away than this is no safety net any more; a phone can ask for 136 years.
constexpr std::chrono::seconds kFurthest = std::chrono::days{30};
// So many times what is left of a set the kernel gets beyond it. Of a phone that refreshes when five sixths of its time
// are over, three refreshes in four ask the kernel for nothing.
constexpr int kFurther = 3;

}  // namespace

SaSets::SaSets(const Config& config, Table& table, xfrm::Kernel& kernel, xfrm::SpiPool& spis,
               sip::Transports& transports, Counters& counters, const Clock& clock)
    : config_(config),
      table_(table),
      kernel_(kernel),
      spis_(spis),
      transports_(transports),
      counters_(counters),
      clock_(clock) {}

// Two phones behind two NATs may have the same private address: then their ports tell them apart.
bool SaSets::uses_client_port(const SetWish& wish, Port port_ps) const {
    const Endpoint ours{wish.gateway, port_ps};
    return table_.uses_client_port(wish.ue, wish.port_uc, ours) ||
           (wish.inner && table_.uses_client_port(*wish.inner, wish.port_uc, ours));
}

std::optional<Port> SaSets::choose_server_port(const SetWish& wish, const ImsAkaProfile& profile) const {
    if (wish.port_ps) return wish.port_ps;
    for (const auto port : profile.server_ports(wish.mode))
        if (!uses_client_port(wish, port)) return port;
    return std::nullopt;
}

std::optional<Port> SaSets::choose_client_port(const SetWish& wish, const ImsAkaProfile& profile) const {
    const auto ports = profile.client_ports(wish.mode);
    if (ports.empty()) return std::nullopt;
    const auto first = static_cast<std::size_t>(random_u64() % ports.size());
    for (std::size_t i = 0; i < ports.size(); ++i) {
        const auto port = ports[(first + i) % ports.size()];
        const Endpoint ours{wish.gateway, port};
        if (table_.uses_server_port(wish.ue, wish.port_us, ours)) continue;
        if (!wish.inner || !table_.uses_server_port(*wish.inner, wish.port_us, ours)) return port;
    }
    return std::nullopt;
}

Result<std::unique_ptr<SaSet>> SaSets::reserve(const SetWish& wish, const ImsAkaProfile& profile,
                                               bool strict_collision) {
    if (table_.sets_at(wish.ue) >= config_.limits.sets_per_address)
        return failure(Reaction::exhausted, "too many sets of SAs for this UE address");
    if (wish.port_ps && uses_client_port(wish, *wish.port_ps))  // B-17, B-22: port_uc shall change
        return failure(Reaction::refused, "the phone's new Security-Client keeps the client port of a live set");
    const auto port_ps = choose_server_port(wish, profile);
    if (!port_ps)
        return failure(Reaction::exhausted,
                       "the UE's address and client port are in use on every protected server port");
    if (*port_ps != wish.port_ps.value_or(profile.server_ports(wish.mode).front())) {
        counters_.add(Counter::port_collision);
        if (strict_collision && wish.mode == xfrm::Mode::transport)  // behind a NAT it is another phone, as a rule
            return failure(Reaction::refused, "the UE's address and client port belong to a live registration");
    }
    const auto port_pc = choose_client_port(wish, profile);
    if (!port_pc)
        return failure(Reaction::exhausted,
                       "no protected client port is left for this UE address and port; configure more");
    const auto spis = spis_.take(wish.spi_uc, wish.spi_us);
    if (!spis) return std::unexpected(spis.error());
    auto set = std::make_unique<SaSet>();
    set->number = table_.next_number(config_.xfrm.mark_mask);
    set->parameters = {.ue = wish.ue,
                       .gateway = wish.gateway,
                       .port_uc = wish.port_uc,
                       .port_us = wish.port_us,
                       .port_pc = *port_pc,
                       .port_ps = *port_ps,
                       .spi_uc = wish.spi_uc,
                       .spi_us = wish.spi_us,
                       .spi_pc = spis->spi_pc,
                       .spi_ps = spis->spi_ps,
                       .algorithms = wish.algorithms,
                       .mode = wish.mode,
                       .inner = wish.inner};
    // What is asked for counts from the 200, which comes by the end of the temporary set.
    set->kernel_limit = clock_.wall() + config_.timers.reg_await_auth +
                        std::min(wish.time_asked + config_.timers.lifetime_margin, kFurthest) +
                        config_.timers.kernel_margin;
    set->port_uenc = wish.port_uenc;
    set->inner = wish.inner_in_use;
    return set;
}

xfrm::SetRequest SaSets::request_for(const SaSet& set, xfrm::EspKeys keys) const {
    return {.parameters = set.parameters,
            .keys = std::move(keys),
            .mark = Mark{set.number.value},
            .lifetime = std::chrono::ceil<std::chrono::seconds>(set.kernel_limit - clock_.wall()),
            .port_uenc = set.port_uenc};
}

Task<Result<void>> SaSets::follow_nat(SetNumber number, Port port_uenc) {
    auto* set = table_.find_set(number).set;
    if (!set || !set->is_behind_nat() || set->port_uenc == port_uenc) co_return Result<void>{};
    const auto before = std::exchange(set->port_uenc, port_uenc);  // both inbound SAs tell of it
    const auto followed = co_await kernel_.follow_nat(set->parameters, port_uenc);
    auto* still = table_.find_set(number).set;
    if (followed) counters_.add(Counter::nat_port_followed);
    else if (still && still->port_uenc == port_uenc) still->port_uenc = before;
    co_return followed;
}

Task<Result<std::unique_ptr<SaSet>>> SaSets::install(std::unique_ptr<SaSet> set, xfrm::EspKeys keys) {
    auto request = request_for(*set, std::move(keys));
    const auto installed = co_await kernel_.install_set(std::move(request));
    if (!installed) {
        counters_.add(Counter::sa_add_failed);
        spis_.release(set->own_spis());
        co_return std::unexpected(installed.error());
    }
    counters_.add(Counter::sa_added);
    set->expires = clock_.now() + config_.timers.reg_await_auth;
    co_return set;
}

std::chrono::seconds SaSets::left_until(TimePoint expires) const {
    return std::max(std::chrono::ceil<std::chrono::seconds>(expires - clock_.now()), std::chrono::seconds{0});
}

Task<Result<void>> SaSets::keep_until(SetNumber number, TimePoint expires) {
    const auto* set = table_.find_set(number).set;
    if (!set) co_return failure(Reaction::broken, "the set of SAs ended");
    if (set->kernel_limit >= clock_.wall() + left_until(expires) + config_.timers.kernel_margin)
        co_return Result<void>{};
    auto parameters = set->parameters;
    co_return co_await extend(number, std::move(parameters), expires);
}

Task<Result<void>> SaSets::extend(SetNumber number, xfrm::SetParameters parameters, TimePoint expires) {
    const auto left = left_until(expires);
    const auto lifetime = left + std::min(kFurther * left, std::max(kFurthest - left, std::chrono::seconds{0})) +
                          config_.timers.kernel_margin;
    const auto limit = clock_.wall() + lifetime;
    const auto extended = co_await kernel_.extend_set(parameters, lifetime);
    auto* set = table_.find_set(number).set;
    if (extended && set && set->parameters == parameters) set->kernel_limit = limit;  // else other SAs took their place
    co_return extended;
}

Task<void> SaSets::remove(std::unique_ptr<SaSet> set) {
    if (on_removed_) on_removed_(set->number);
    for (const auto& [local, remote] :
         {std::pair{set->gateway_server(), set->ue_client()}, std::pair{set->gateway_client(), set->ue_server()}})
        if (const auto flow = transports_.find_connection(local, remote)) transports_.close(flow->connection, true);
    waiting_.erase(set->number);
    if (on_unanswered_ && set->state == SetState::temporary) {
        auto reports = co_await kernel_.report_set(set->parameters);
        if (reports) on_unanswered_(*set, std::move(*reports));
    }
    transports_.flush();  // what was said over it last leaves before its SAs go
    const auto removed = co_await kernel_.remove_set(set->parameters);
    if (!removed) {
        log::error(
            "sa-remove-failed",
            {{"set", set->number.value}, {"ue", set->parameters.ue.to_string()}, {"reason", removed.error().text}});
        leftovers_.push_back(set->parameters);
        co_return;
    }
    counters_.add(Counter::sa_deleted);
    spis_.release(set->own_spis());
}

Task<void> SaSets::remove_leftovers() {
    auto waiting = std::exchange(leftovers_, {});
    for (const auto& parameters : waiting) {
        const auto removed = co_await kernel_.remove_set(parameters);
        if (!removed) {
            leftovers_.push_back(parameters);
            continue;
        }
        counters_.add(Counter::sa_deleted);
        spis_.release({parameters.spi_pc, parameters.spi_ps});
    }
}

sip::Flow SaSets::udp_flow(const SaSet& set) {
    return {.transport = sip::Transport::udp,
            .local = set.gateway_client(),
            .remote = set.ue_server(),
            .connection = {},
            .mark = {}};
}

bool take_into_use(Registration& registration, SetNumber number, TimePoint now, std::chrono::seconds grace) {
    auto* set = registration.find(number);
    if (!set || set->state != SetState::established || set->in_use) return false;
    for (const auto& other : registration.sets) {
        if (other->number == number) continue;
        other->in_use = false;
        other->expires = std::min(other->expires, now + grace);
    }
    set->in_use = true;
    ++registration.generation;
    return true;
}

}  // namespace gmgate::daemon
