// The way to the core: one next hop over UDP or TCP, and what our Via towards it says.
#pragma once

#include <memory>
#include <string>

#include "base/task.h"
#include "daemon/config.h"
#include "sip/transactions.h"

namespace gmgate::daemon {

class CoreLink {
public:
    CoreLink(const Core& core, sip::Transports& transports, sip::Transactions& transactions);

    /// Transport for a request of that size: the configured one, TCP for what does not fit a datagram (RFC 3261 §18.1.1).
    sip::Transport transport_for(std::size_t octets) const;
    const std::string& via_host() const { return via_host_; }
    bool is_core_side(const sip::Flow& flow) const;  ///< received on the core-side socket

    /// Starts a client transaction towards the next hop, opening the TCP connection when there is none. `request` carries our Via
    /// with `transport`. Errors: Reaction::broken with the reason.
    Task<Result<std::unique_ptr<sip::ClientTransaction>>> send(std::string request, sip::Transport transport);
    /// ACK to 2xx and other messages outside transactions.
    Task<Result<void>> send_stateless(std::string bytes, sip::Transport transport);

private:
    Task<Result<sip::Flow>> flow_to_core(sip::Transport transport);
    const Core& core_;
    sip::Transports& transports_;
    sip::Transactions& transactions_;
    std::string via_host_;
    sip::Flow connection_;  ///< the live TCP connection, when there is one
};

}  // namespace gmgate::daemon
