// A network namespace for a test program that opens sockets on the loopback: no other process has a port there.
#pragma once

#include "base/types.h"

namespace gmgate::test {

/// Puts this process into a network namespace of its own with nothing but a loopback, IPv4 and IPv6. As root it takes
/// CAP_SYS_ADMIN; others get a user namespace around it, in which they keep their ids. Call it before any thread is
/// started. Where the machine allows neither, it says so on standard error and ends the process with status 1: in a
/// shared network a test fails whenever somebody else has its port.
void enter_own_network();

/// A port that nothing in this process has, for UDP and TCP, every address of the loopback and the life of the process
/// (until 20,000 have been given out): they lie below the range from which the kernel chooses for port 0. Only after
/// enter_own_network().
Port fresh_port();

}  // namespace gmgate::test
