// A phone that comes back with the SPIs that it had before: it was rebooted and counts from the beginning, or its
// address is another's now. Only one set at an address can have them. The set that has them stays untouched until the
// newcomer has proved itself; how a set lives without them meanwhile: registrations/waiting_spis.cpp.
#include <algorithm>

#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>

#include "base/log.h"
#include "daemon/agreement/register_flow.h"

namespace gmgate::daemon {
namespace {

// How often the kernel is asked whether a waiting phone tries to connect: soon after its challenge often, for it sends
// its SYN again after one second, later less.
constexpr std::chrono::milliseconds kFirstLook{200}, kLastLook{2000};

}  // namespace

bool RegisterFlow::is_of(const Impi& impi, SetNumber number) const {
    const auto owner = p_.table.find_set(number);
    if (owner.challenge) return owner.challenge->impi == impi;
    return owner.registration && owner.registration->key.impi == impi;
}

// When it is not one of our own sets that has the SPIs, nothing will make room: the refusal stands.
Task<Result<std::unique_ptr<SaSet>>> RegisterFlow::install_beside(const Exchange& x, SetWish wish,
                                                                  const ChallengeKeys& keys, Error refusal) {
    const auto holders = p_.sets.holders_of(wish.ue, wish.spi_uc, wish.spi_us);
    if (holders.empty()) co_return std::unexpected(std::move(refusal));
    // Behind a NAT it is another phone as a rule, and alive: only the phone's own SPIs may come to be its again.
    if (wish.mode == xfrm::Mode::udp_enc_tun &&
        !std::ranges::all_of(holders, [&](SetNumber holder) { return is_of(x.impi, holder); }))
        co_return std::unexpected(std::move(refusal));
    auto now = xfrm::derive_esp_keys(wish.algorithms, keys.ck, keys.ik);
    auto later = xfrm::derive_esp_keys(wish.algorithms, keys.ck, keys.ik);
    if (!now || !later) co_return std::unexpected(std::move(refusal));
    auto reserved = p_.sets.reserve(wish, *x.access->profile, x.access->interface->strict_collision);
    if (!reserved) co_return std::unexpected(reserved.error());
    co_return co_await p_.sets.install_waiting(std::move(*reserved), std::move(*now), std::move(*later));
}

// The newcomer has proved itself: whoever had its SPIs is gone, for a host has one inbound SA of an SPI. The core's 200
// says so; and what came over the new set has passed the kernel's check of integrity, with keys that only the user's
// USIM and the core have. That counts where the phone waits for an answer that tells it to try again over the same SAs:
// it must hear of it.
Task<Result<void>> RegisterFlow::take_spis(SetNumber number) {
    const auto* set = p_.table.find_set(number).set;
    if (!set) co_return failure(Reaction::broken, "the set of SAs ended");
    const auto guard = co_await address_lock_.acquire(set->parameters.ue);
    if (!p_.sets.is_waiting(number)) co_return Result<void>{};  // another REGISTER over it has done so meanwhile
    auto ended = end_holders(number);
    for (auto& holder : ended) co_await p_.sets.remove(std::move(holder));
    co_return co_await p_.sets.take_spis(number);
}

std::vector<std::unique_ptr<SaSet>> RegisterFlow::end_holders(SetNumber newcomer) {
    std::vector<std::unique_ptr<SaSet>> ended;
    const auto* challenge = p_.table.find_set(newcomer).challenge;
    const std::string by = challenge ? challenge->impi.value : "";
    for (const auto number : p_.sets.holders_from(newcomer)) {
        const auto owner = p_.table.find_set(number);
        if (owner.challenge) {
            const auto key = owner.challenge->key();
            ended.push_back(std::move(p_.table.take_challenge(key)->set));
            continue;
        }
        auto& registration = *owner.registration;
        ++registration.generation;
        auto set = p_.table.take_set(registration, number);
        if (registration.sets.empty()) {
            p_.counters.add(Counter::displaced);
            log::notice("registration-ended",
                        {{"impi", registration.key.impi.value},
                         {"ue", set->parameters.ue.to_string()},
                         {"by", by},
                         {"why", "a phone at its address has proved that the SPIs of its SAs are its own now"}});
            p_.table.take(ContactKey{registration.key});
        } else if (set->in_use) {
            registration.sets.back()->in_use = true;
        }
        ended.push_back(std::move(set));
    }
    return ended;
}

// Over TCP no REGISTER comes before the gateway's SYN-ACK has left through an SA with the phone's SPI. Here the phone's
// SYN is the proof: the kernel has verified it with keys that only the user's USIM and the core have, for a challenge
// that went to this address. A datagram is on its way to the gateway when it is counted, so one more look is taken.
Task<void> RegisterFlow::await_connection(SetNumber number) {
    asio::steady_timer timer(co_await asio::this_coro::executor);
    auto pause = kFirstLook;
    bool was_wanted = false;
    while (p_.sets.is_waiting(number)) {
        timer.expires_after(pause);
        asio::error_code stopped;
        co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, stopped));
        if (stopped) co_return;
        const bool is_wanted = co_await p_.sets.wants_connection(number);
        if (is_wanted && was_wanted) {
            const auto taken = co_await take_spis(number);
            if (!taken) log::warning("spis-not-taken", {{"set", number.value}, {"reason", taken.error().text}});
            co_return;
        }
        was_wanted = is_wanted;
        pause = is_wanted ? kFirstLook : std::min(pause + pause / 4, kLastLook);
    }
}

}  // namespace gmgate::daemon
