// Every event that the gateway counts (superset of Oracle's sa-imsaka counters). Gauges are read from the tables.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace gmgate::daemon {

/// X(name, help). One place that declares a counter: name, help text and the enum that increments it.
#define GMGATE_COUNTERS(X)                                                                                            \
    X(register_rx_unprotected, "REGISTER received on an unprotected port")                                            \
    X(register_rx_temporary, "REGISTER received over a temporary set of SAs")                                         \
    X(register_rx_established, "REGISTER received over an established set of SAs")                                    \
    X(register_rx_tls, "REGISTER received over TLS")                                                                  \
    X(mechanism_ipsec, "ipsec-3gpp chosen")                                                                           \
    X(mechanism_tls, "tls chosen")                                                                                    \
    X(mechanism_none, "REGISTER without Security-Client forwarded")                                                   \
    X(deprecated_chosen, "hmac-md5-96 or des-ede3-cbc chosen, because the phone offers nothing better")               \
    X(challenge_tx, "401 sent to a UE with its SAs installed")                                                        \
    X(registered, "registrations established")                                                                        \
    X(reregistered, "re-registrations accepted")                                                                      \
    X(deregistered, "de-registrations accepted")                                                                      \
    X(reject_400, "400 sent by the gateway")                                                                          \
    X(reject_403, "403 sent by the gateway")                                                                          \
    X(reject_420, "420 sent by the gateway")                                                                          \
    X(reject_421, "421 sent by the gateway")                                                                          \
    X(reject_494, "494 sent by the gateway")                                                                          \
    X(reject_5xx, "5xx sent by the gateway")                                                                          \
    X(verify_mismatch, "Security-Verify differs from the Security-Server sent")                                       \
    X(client_mismatch, "Security-Client differs from the one stored")                                                 \
    X(impi_mismatch, "IMPI in Authorization differs from the one of the SAs")                                         \
    X(via_mismatch, "Via address differs from the packet's source on a protected port")                               \
    X(offer_unusable, "Security-Client without a usable mechanism")                                                   \
    X(port_collision, "UE address and port in use by another registration: other server port chosen")                 \
    X(displaced, "registrations ended because another contact proved that their address and client port are its own") \
    X(tls_refused, "TLS connections refused before the handshake: too many under way or too many connections")        \
    X(tls_gave_way, "TLS handshakes ended because a limit was reached and a newer one came")                          \
    X(core_spared, "REGISTERs in clear answered 503 because their share of authentications was used up")              \
    X(core_stranger, "datagrams and connections to [core] listen from somebody who is none of the core's")            \
    X(challenge_gave_way, "challenges that ended to make room for a newer one")                                       \
    X(set_limit, "refused: too many sets or challenges")                                                              \
    X(ck_ik_missing, "401 from the core without ck and ik although ipsec-3gpp was chosen")                            \
    X(sa_add_failed, "sets of SAs that the kernel refused")                                                           \
    X(sa_added, "sets of SAs installed")                                                                              \
    X(sa_deleted, "sets of SAs removed")                                                                              \
    X(sa_lost, "sets of SAs that expired in the kernel or that somebody else deleted")                                \
    X(mechanism_udp_enc_tun, "ipsec-3gpp chosen in mode UDP-enc-tun, for a phone behind NAT")                         \
    X(nat_port_followed, "times that a NAT gave a phone another UDP port and its SAs followed")                       \
    X(nat_other_inner, "messages of phones behind NAT dropped: another address inside the tunnel than before")        \
    X(nat_moved, "sets of SAs ended because the phone's NAT has another address")                                     \
    X(guards_restored, "times that guard policies which somebody else had deleted were installed again")              \
    X(kernel_events_lost, "times that the socket of kernel events overflowed; a dump follows")                        \
    X(address_lost, "times that an access address went away")                                                         \
    X(temporary_expired, "temporary sets that ran out unanswered")                                                    \
    X(established_expired, "registrations that ran out")                                                              \
    X(wrong_sa, "messages dropped because they came over no or the wrong set of SAs")                                 \
    X(stray_wrong_door, "ACKs and late responses dropped because they did not come from whom they may come")          \
    X(unprotected_rejected, "requests other than REGISTER and emergency rejected on an unprotected port")             \
    X(emergency_passed, "emergency requests passed from an unprotected port")                                         \
    X(core_unreachable, "requests for which the core gave no answer")                                                 \
    X(core_closed, "REGISTERs in clear at which the core closed a connection that carried nothing else")              \
    X(no_sa, "messages not sent from a protected port because their set of SAs has ended")                            \
    X(no_set, "requests towards a UE refused because it has no set of SAs")                                           \
    X(not_registered, "requests towards a token that is not registered")                                              \
    X(overload_refused, "requests outside dialogs refused with 503 because the loop was late")                        \
    X(emergency_refused, "emergency requests refused because too many emergency dialogs are open")                    \
    X(emergency_evicted, "unanswered emergency calls from unprotected ports that gave way to newer ones")             \
    X(unknown_dialog, "requests of UEs with a To tag whose dialog never passed here: treated as outside a dialog")    \
    X(route_replaced, "requests of UEs whose Route was not the Service-Route and was replaced by it")                 \
    X(reg_event_subscribed, "subscriptions to the reg event package that the S-CSCF accepted")                        \
    X(reg_event_failed, "SUBSCRIBEs for the reg event package that got no 2xx")                                       \
    X(network_deregistered, "contacts that the network de-registered, told by the reg event package")                 \
    X(requests_from_ue, "requests forwarded from UEs to the core")                                                    \
    X(requests_to_ue, "requests forwarded from the core to UEs")                                                      \
    X(store_written, "rows of registrations written to the store")                                                    \
    X(store_failed, "writes to the store that failed (disk full, I/O error); they are tried again")                   \
    X(store_overflow, "changes not queued for the store because its queue was full")                                  \
    X(store_set_aside, "unreadable store files that were set aside")                                                  \
    X(registrations_lost_by_reboot, "registrations in the store whose SAs went with a reboot")                        \
    X(registrations_adopted, "registrations that lived on after a restart of the gateway")                            \
    X(registrations_not_adopted, "registrations of the store whose SAs or connection were gone at start")             \
    X(stale_sas_removed, "SAs found at start that no registration needs, removed")                                    \
    X(connections_resumed, "connections of the process before that went on")                                          \
    X(connections_out_of_step, "connections of the process before that were closed because it ended amid a message")

enum class Counter {
#define GMGATE_X(name, help) name,
    GMGATE_COUNTERS(GMGATE_X)
#undef GMGATE_X
        kCount_,
};

struct CounterInfo {
    std::string_view name;
    std::string_view help;
};
inline constexpr std::array<CounterInfo, static_cast<std::size_t>(Counter::kCount_)> kCounterInfo{{
#define GMGATE_X(name, help) CounterInfo{#name, help},
    GMGATE_COUNTERS(GMGATE_X)
#undef GMGATE_X
}};

/// One loop, one thread: plain numbers.
class Counters {
public:
    void add(Counter counter, std::uint64_t n = 1) { values_[static_cast<std::size_t>(counter)] += n; }
    std::uint64_t get(Counter counter) const { return values_[static_cast<std::size_t>(counter)]; }
    std::uint64_t at(std::size_t index) const { return values_[index]; }

private:
    std::array<std::uint64_t, static_cast<std::size_t>(Counter::kCount_)> values_{};
};

}  // namespace gmgate::daemon
