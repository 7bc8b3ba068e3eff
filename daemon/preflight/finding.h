// What a look at this machine found before gmgated is started: one line each, with its fix.
#pragma once

#include <string>
#include <vector>

#include "daemon/config/config.h"
#include "xfrm/kernel.h"

namespace gmgate::daemon {

struct Finding {
    bool is_error = true;  ///< false: it works, and hardly as meant
    std::string what;      ///< "10.1.0.1:6100/udp is in use by kamailio (pid 812)"
    std::string fix;       ///< what to do, often a command to copy
};
/// "error: WHAT; fix: FIX", without a line end.
std::string line_of(const Finding& finding);

/// What `--check-config` looks at besides the file itself: the group of the control socket, the folders of sockets and
/// store. Needs no rights.
std::vector<Finding> check_installation(const Config& config);

/// Every pair that some profile allows: what the kernel is probed for.
std::vector<AlgorithmPair> all_allowed_pairs(const Config& config);
/// One sentence about everything that a probe found missing, naming the modules once; empty when nothing is. A kernel
/// without any ESP is one short sentence, too.
std::string kernel_lacks(const std::vector<xfrm::ProbeFinding>& findings);

/// Sockets of the configuration that somebody else has; a gmgated that runs has them rightly. As root: names who.
std::vector<Finding> check_ports(const Config& config);

/// rp_filter, ports that the kernel may give to anybody (ip_local_port_range), interfaces on which policies do not
/// count.
std::vector<Finding> check_sysctls(const Config& config);

/// One port, and which of the two protocols.
struct OpenedSocket {
    Endpoint local;
    bool is_udp = false;
    friend auto operator<=>(const OpenedSocket&, const OpenedSocket&) = default;
};
/// All that a start with this configuration opens.
std::vector<OpenedSocket> sockets_of(const Config& config);

/// The ports of `list` as the kernel writes ip_local_reserved_ports, "8080,9148-9150", and whether one of them is
/// there; false for what cannot be read.
bool is_port_in_list(std::string_view list, Port port);

}  // namespace gmgate::daemon
