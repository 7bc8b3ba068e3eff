// Requests other than REGISTER: from a phone over its SAs to the core, and from the core to a phone over its SAs.
#pragma once

#include <memory>

#include "daemon/config.h"
#include "daemon/operate/counters.h"
#include "daemon/proxy/core_link.h"
#include "daemon/registrations/table.h"
#include "sip/transactions.h"

namespace gmgate::daemon {

/// How to reach a phone over one of its sets: UDP port_pc → port_us, or a TCP connection (B-15).
struct UePath {
    sip::Flow flow;
    std::string via_host;  ///< our sent-by on this leg: the protected server port
};

class Router {
public:
    Router(const Config& config, Table& table, CoreLink& core, sip::Transports& transports, sip::Transactions& transactions,
           Counters& counters);

    /// A request over an established or old set. Checks that the user of the set is the user asserted (B-23), C-60…C-66.
    Task<void> from_ue(std::shared_ptr<sip::ServerTransaction> transaction);
    /// A request from the core: the topmost Route (or Request-URI) carries a token of ours (C-70, C-71).
    Task<void> from_core(std::shared_ptr<sip::ServerTransaction> transaction);
    /// ACK to 2xx, responses that match no transaction.
    void stray(sip::OwnedMessage message, sip::Flow flow);

private:
    const Config& config_;
    Table& table_;
    CoreLink& core_;
    sip::Transports& transports_;
    sip::Transactions& transactions_;
    Counters& counters_;
};

}  // namespace gmgate::daemon
