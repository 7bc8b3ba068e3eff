// The way to the core: one next hop over UDP, TCP or TLS (and one for emergency calls), and what our Via towards it says.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/task.h"
#include "daemon/config.h"
#include "daemon/proxy/connector.h"
#include "sip/headers.h"
#include "sip/transactions.h"

namespace gmgate::daemon {

class CoreLink {
public:
    CoreLink(const Core& core, sip::Transports& transports, sip::Transactions& transactions);
    /// Needed before the first request when the transport is tls.
    void use_tls(TlsConnector& tls) { connector_.use_tls(tls); }

    /// Transport for a request of that size: the configured one, TCP for what does not fit a datagram (RFC 3261 §18.1.1).
    sip::Transport transport_for(std::size_t octets) const;
    /// True when TCP was chosen for the size alone, so that UDP may be tried when it fails (RFC 3261 §18.1.1).
    bool may_fall_back(sip::Transport transport) const;
    const std::string& via_host() const { return via_host_; }
    /// host:port of our URI as the core reaches it, in Path and Record-Route; with ;transport=tcp or tls when the core is spoken to so.
    const std::string& uri_host() const { return uri_host_; }
    bool is_core_side(const sip::Flow& flow) const;  ///< received on the core-side socket or on a connection of ours to the core
    /// True for an address that we send requests to: only there may a response without transaction go.
    bool is_core_address(const Address& address) const;
    /// The E-CSCF (C-83), else the ordinary next hop.
    const Endpoint& next_hop() const { return core_.next_hop; }
    const Endpoint& emergency_next_hop() const { return emergency_next_hop_; }

    /// Starts a client transaction towards the next hop, opening the TCP connection when there is none. `request` carries our Via
    /// with `transport`. Errors: Reaction::broken with the reason.
    Task<Result<std::unique_ptr<sip::ClientTransaction>>> send(std::string request, sip::Transport transport);
    /// The same towards another element (an E-CSCF).
    Task<Result<std::unique_ptr<sip::ClientTransaction>>> send(std::string request, sip::Transport transport, Endpoint next_hop);
    /// The same for a request that is built for its transport: TCP when it is too long for a datagram, UDP again when TCP then fails.
    Task<Result<std::unique_ptr<sip::ClientTransaction>>> send_fitting(std::function<std::string(sip::Transport)> build, Endpoint next_hop);
    /// ACK to 2xx and other requests outside transactions.
    Task<Result<void>> send_stateless(std::string bytes, sip::Transport transport);
    Task<Result<void>> send_stateless(std::string bytes, sip::Transport transport, Endpoint next_hop);

private:
    Task<Result<sip::Flow>> flow_to(Endpoint next_hop, sip::Transport transport);

    const Core& core_;
    sip::Transports& transports_;
    sip::Transactions& transactions_;
    std::string via_host_, uri_host_;
    Endpoint emergency_next_hop_;
    std::map<Endpoint, sip::Flow> connections_;                     ///< the live TCP or TLS connection to each next hop
    Connector connector_;
};

}  // namespace gmgate::daemon
