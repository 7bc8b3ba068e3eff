// The life of a set of SAs (TS 33.203 §7.4, C-44): ports and SPIs chosen, installed in the kernel, taken into use,
// extended, and removed with everything that hangs on it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/task.h"
#include "daemon/config/config.h"
#include "daemon/observe/counters.h"
#include "daemon/registrations/table.h"
#include "sip/transport/transport.h"
#include "xfrm/kernel.h"
#include "xfrm/spi_pool.h"

namespace gmgate::daemon {

/// What a new set is made of, before SPIs and ports of ours are chosen.
struct SetWish {
    Address ue;
    Address gateway;
    Port port_uc, port_us;
    Spi spi_uc, spi_us;
    AlgorithmPair algorithms;
    std::chrono::seconds time_asked{0};  ///< that the phone wants to be registered
    std::optional<Port> port_ps;  ///< re-authentication: unchanged (B-17); none: the first that does not collide (G-25)
    xfrm::Mode mode = xfrm::Mode::transport;    ///< udp_enc_tun: `ue` is the address of its NAT
    Port port_uenc = xfrm::kEncapsulationPort;  ///< the best guess: 4500, or what is known of an earlier set
    std::optional<Address> inner{};             ///< udp_enc_tun: xfrm::SetParameters::inner
    std::optional<Address> inner_in_use{};      ///< which it has inside, as an earlier set of the phone told
};

class SaSets {
public:
    SaSets(const Config& config, Table& table, xfrm::Kernel& kernel, xfrm::SpiPool& spis, sip::Transports& transports,
           Counters& counters, const Clock& clock);

    /// Chooses port_ps, a port_pc that no set of this (UE address, port_us) uses, and two SPIs (B-11, B-17, B-22). They
    /// stay reserved until the set is removed. Errors: Reaction::exhausted (limits, no port left), Reaction::refused
    /// (collision, strict mode).
    Result<std::unique_ptr<SaSet>> reserve(const SetWish& wish, const ImsAkaProfile& profile, bool strict_collision);
    /// Installs a reserved set in the kernel, with a limit that covers the time that its phone asked for: a core that
    /// grants no more leaves nothing to be extended. Here it gets the lifetime of a temporary set. On failure the
    /// kernel holds none of its SAs and the reservation is given back.
    Task<Result<std::unique_ptr<SaSet>>> install(std::unique_ptr<SaSet> set, xfrm::EspKeys keys);
    /// The kernel's hard limit of a set of the table lies `kernel-margin` behind `expires` at least when this has
    /// succeeded; it is never decreased (B-51). The kernel is asked only when the limit is nearer than that, and then
    /// for several such times, so that the next refreshes find it far enough away: it is a safety net, our own timers
    /// end a set (B-10). Errors: the kernel's; its limit is what it was.
    Task<Result<void>> keep_until(SetNumber number, TimePoint expires);
    /// The same, and the kernel is asked in any case; the set need not be in the table.
    Task<Result<void>> extend(SetNumber number, xfrm::SetParameters parameters, TimePoint expires);
    /// The NAT of a set in the table has the phone's port 4500 at `port_uenc` now: in the kernel, and here. Nothing to
    /// do when it is known; after an Error it is not, so that the kernel's next word is heard.
    Task<Result<void>> follow_nat(SetNumber number, Port port_uenc);
    /// Closes its connections, deletes the SAs, gives SPIs back. The set is out of the table already. What the kernel
    /// does not delete keeps its SPIs and is tried again by remove_leftovers().
    Task<void> remove(std::unique_ptr<SaSet> set);
    /// Gets the kernel's last counters of each temporary set that ends, before its SAs go.
    void on_unanswered(std::function<void(const SaSet&, std::vector<xfrm::SaReport>)> handler) {
        on_unanswered_ = std::move(handler);
    }
    /// Gets the number of each set that remove() is told to end.
    void on_removed(std::function<void(SetNumber)> handler) { on_removed_ = std::move(handler); }
    /// Deletes what an earlier remove() could not; called once a second.
    Task<void> remove_leftovers();
    std::size_t leftovers() const { return leftovers_.size(); }

    // ---- waiting_spis.cpp: a phone that comes back with the SPIs that it had before (docs/kernel.md)
    /// Our other sets that hold one of these SPIs of a phone at its address. Looks at every set: for rare moments.
    std::vector<SetNumber> holders_of(const Address& ue, Spi spi_uc, Spi spi_us) const;
    /// The same for a set that waits for its SPIs.
    std::vector<SetNumber> holders_from(SetNumber waiting) const;
    /// As install(), but in place of the phone's SPIs, which another set holds still, the outbound SAs get stand-ins
    /// that no phone knows. `keys` are for now, `later` the same ones for take_spis().
    Task<Result<std::unique_ptr<SaSet>>> install_waiting(std::unique_ptr<SaSet> set, xfrm::EspKeys keys,
                                                         xfrm::EspKeys later);
    /// True for a set that was installed so and has not got the phone's SPIs yet.
    bool is_waiting(SetNumber number) const { return waiting_.contains(number); }
    /// The phone's own SPIs, which nobody holds any more, take the place of the stand-ins: in the kernel, then in the
    /// set. Errors leave the set with its stand-ins, and it waits no more.
    Task<Result<void>> take_spis(SetNumber number);
    /// A datagram over a waiting set has come to the gateway: what follows from it is decided with the core's answer.
    void heard_datagram(SetNumber number);
    /// Something came over a waiting set that passed the kernel's check of integrity and no datagram reached the
    /// gateway: a TCP connection that cannot be established without the phone's SPIs.
    Task<bool> wants_connection(SetNumber number);

    /// Outbound flow of a set for UDP: port_pc → port_us (B-15).
    static sip::Flow udp_flow(const SaSet& set);

private:
    /// What a waiting set needs to become whole.
    struct Waiting {
        Spi spi_uc, spi_us;
        xfrm::EspKeys keys;
        bool has_heard = false;  ///< a datagram reached the gateway
    };
    Task<void> remove_parts(xfrm::SetParameters parts);

    std::function<void(const SaSet&, std::vector<xfrm::SaReport>)> on_unanswered_;
    std::function<void(SetNumber)> on_removed_;
    bool uses_client_port(const SetWish& wish, Port port_ps) const;
    std::optional<Port> choose_server_port(const SetWish& wish, const ImsAkaProfile& profile) const;
    std::optional<Port> choose_client_port(const SetWish& wish, const ImsAkaProfile& profile) const;
    xfrm::SetRequest request_for(const SaSet& set, xfrm::EspKeys keys) const;
    std::chrono::seconds left_until(TimePoint expires) const;

    const Config& config_;
    Table& table_;
    xfrm::Kernel& kernel_;
    xfrm::SpiPool& spis_;
    sip::Transports& transports_;
    Counters& counters_;
    const Clock& clock_;
    std::vector<xfrm::SetParameters> leftovers_;
    std::unordered_map<SetNumber, Waiting> waiting_;  ///< until the set is whole or removed
};

/// Row "message over the established-not-yet-used set" (C-43): takes it into use and cuts the old ones to `grace`. True
/// when it did.
bool take_into_use(Registration& registration, SetNumber number, TimePoint now, std::chrono::seconds grace);

}  // namespace gmgate::daemon
