// Phones behind NAT (TS 33.203 Annex M): settings of an [[ims-aka-profile]].
#pragma once

#include <vector>

#include "base/types.h"
#include "xfrm/sa.h"

namespace gmgate::daemon {

/// `nat-traversal` and its protected ports, apart from those of transport mode: one policy with a port mask stands for
/// all of them.
struct NatTraversal {
    bool is_on = false;
    Port start_protected_port, end_protected_port;  ///< a power of two of them, aligned to it
    /// `nat-inner-addresses`: "any" also serves phones that have their private address inside the tunnel.
    bool takes_private_inner = false;

    /// size 0 unless it is on.
    xfrm::PortBlock block() const;
    /// port_ps candidates, the lower half: so many phones behind one NAT may have the same client port.
    std::vector<Port> server_ports() const;
    /// port_pc pool, the upper half.
    std::vector<Port> client_ports() const;
};

}  // namespace gmgate::daemon
