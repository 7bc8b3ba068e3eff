// The sockets of addresses that this machine does not have yet: bound beforehand, so that what a phone sends in the
// moment between the addresses' coming and this node's turn waits for it.
#pragma once

#include <vector>

#include "base/endpoint.h"
#include "sip/transport/socket.h"

namespace gmgate::daemon {

/// Nothing is read from them. While the addresses are elsewhere the kernel delivers nothing to them either.
class HeldSockets {
public:
    struct Wish {
        Endpoint local;
        bool udp = true, tcp = true;
    };
    /// `prepared`: unbound UDP sockets (sip::prepare_udp_socket()).
    HeldSockets(std::vector<Wish> wishes, std::vector<sip::FileDescriptor> prepared);

    /// True: connections are accepted by the kernel, and wait; false: they are refused. What cannot be bound (a socket
    /// of the process before has it) is not held, and opened at its time.
    void hold(bool accepts);
    /// All of them, for sip::Transports::inherit(). `is_old`: datagrams that have come meanwhile are thrown away.
    std::vector<sip::FileDescriptor> take(bool is_old);
    /// Prepared sockets that were not needed.
    std::vector<sip::FileDescriptor> take_unused();

private:
    std::vector<Wish> wishes_;
    std::vector<sip::FileDescriptor> prepared_, udp_, tcp_;
    bool has_bound_ = false;
};

/// A later bind() to an address that is not here is no mistake. False when the kernel does not know it.
bool bind_anywhere(int descriptor);

}  // namespace gmgate::daemon
