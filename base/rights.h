// Descriptors that one process gives to another over a unix socket (SCM_RIGHTS, unix(7)).
#pragma once

#include <cstddef>
#include <string_view>

#include <sys/types.h>

namespace gmgate {

/// One datagram, and with it `descriptor` unless that is -1; the caller keeps its own. 0, or the errno of sendmsg(); an
/// interrupted call is made again.
int send_with_descriptor(int socket, std::string_view bytes, int descriptor);

struct WithDescriptor {
    ssize_t size = 0;     ///< octets, 0: the other end is closed, -1: errno tells
    int descriptor = -1;  ///< the caller's to close, -1 when none came; closed on exec
};
/// The next datagram into `bytes`; what has no room is lost. `flags` as for recvmsg(). An interrupted call is made
/// again.
WithDescriptor receive_with_descriptor(int socket, void* bytes, std::size_t room, int flags = 0);

}  // namespace gmgate
