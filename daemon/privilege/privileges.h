// What needs privilege is done first; then this process has none. Nothing that somebody else sent has been read before.
#pragma once

#include <optional>
#include <vector>

#include "daemon/config/config.h"
#include "daemon/operate/packet_tap.h"
#include "sip/transport/socket.h"

namespace gmgate::daemon {

/// What was opened with capabilities, to be used without.
struct Prepared {
    std::vector<sip::FileDescriptor>
        udp;  ///< for each UDP port of the configuration: large buffers, reports marks, not bound yet
    std::optional<TapSockets> tap;
};

/// CAP_NET_ADMIN: SO_RCVMARK, buffers beyond net.core.rmem_max, the `tls` module. CAP_NET_RAW: the packet tap, without
/// which it works as well (logged). Reaction::refused with the reason.
Result<Prepared> prepare(const Config& config);

/// Gives up every capability, all that no_new_privs takes, and the system calls that are not on the list. Before the
/// first thread.
Result<void> give_up_privileges();

/// Protected ports for the tap.
TapSettings tap_settings(const Config& config);

}  // namespace gmgate::daemon
