// The UDP sockets that make the kernel take ESP out of UDP (RFC 3948), for phones behind NAT. Nothing is ever read from
// them.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "base/endpoint.h"
#include "base/error.h"
#include "sip/transport/socket.h"

namespace gmgate::daemon {

/// One at port 4500 of each address. ESP goes to its SA and keep-alives end in the kernel; everything else (datagrams
/// with the zero non-ESP marker, which no IKE daemon of ours waits for) is dropped by a filter and counted by the
/// kernel, so that nobody's datagrams wake this process.
class EncapSockets {
public:
    explicit EncapSockets(std::vector<Address> addresses);

    /// Whether a descriptor bound to `local` is one of these.
    bool is_ours(const Endpoint& local) const;
    /// A socket of the process before, at one of the addresses.
    void inherit(sip::FileDescriptor socket);
    /// Opens what was not inherited. Needs no capability. Reaction::refused with the reason and the fix. `is_ahead`:
    /// the addresses may still be elsewhere.
    Result<void> open(bool is_ahead = false);
    void for_each_socket(const std::function<void(const Endpoint&, int descriptor)>& f) const;
    /// Datagrams that were neither ESP nor keep-alives, since the sockets were made.
    std::uint64_t stray_datagrams() const;
    void close() { sockets_.clear(); }

private:
    std::vector<Address> addresses_;
    std::map<Address, sip::FileDescriptor> sockets_;
};

}  // namespace gmgate::daemon
