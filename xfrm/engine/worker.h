// The process that owns the netlink sockets and CAP_NET_ADMIN: the engine on libmnl, behind the protocol.
#pragma once

namespace gmgate::xfrm {

/// Takes its configuration from GM_WORK_FD, confines itself, and serves until the other end is closed. Returns the
/// status to end with.
int work();

}  // namespace gmgate::xfrm
