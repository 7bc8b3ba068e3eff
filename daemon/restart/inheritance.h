// What the process before left for this one: its sockets, its connections and the list that says which of them are in
// step.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "sip/transport/socket.h"
#include "sip/transport/transport.h"

namespace gmgate::daemon {

/// Names by which descriptors travel, in the fd store and in a take-over: "connections" (the ledger), "lock" (of the
/// store), "socket" and what follows (UDP and listening sockets), "c" and the connection's number.
struct Inheritance {
    sip::FileDescriptor ledger, lock;
    std::vector<sip::FileDescriptor> sockets;
    std::unordered_map<sip::ConnectionId, sip::FileDescriptor> connections;
    std::vector<std::string> unknown;  ///< names of descriptors that we did not store

    bool empty() const { return !ledger.is_open() && sockets.empty() && connections.empty(); }
    void take(const std::string& name, sip::FileDescriptor descriptor);
};

inline constexpr const char* kLedgerName = "connections";
inline constexpr const char* kLockName = "lock";
std::string name_of(sip::ConnectionId connection);
/// "socket-udp-192.0.2.1_5060": systemd allows no colon in a name.
std::string socket_name(std::string_view kind, const Endpoint& local);
std::string socket_name_of(int descriptor);

/// From systemd (sd_listen_fds_with_names(3)): what this unit had stored. Empty when nothing was, or when systemd did
/// not start us.
Inheritance inherit_from_service_manager();

}  // namespace gmgate::daemon
