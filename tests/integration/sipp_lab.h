// SIPp, a program that knows nothing of IPsec, as phones: over SAs that iproute2 puts into the phone's kernel.
//
// gmue registers and leaves; what it had in the kernel is put back by `ip xfrm` with selectors of the test's own, so
// that from then on nothing of ours runs on the phone's side. SIPp has one port for everything where B-15 wants two:
// over TCP that is enough (the UAC connects from port_uc, the UAS listens on port_us); over UDP both sit on port_us and
// netfilter in the phone's namespace turns what they send into port_uc -> port_ps.
#pragma once

#include <string>
#include <vector>

#include "tests/integration/scene.h"

namespace gmgate::test {

/// What a phone agreed on.
struct ProtectedPorts {
    int us = 0, uc = 0, ps = 0, pc = 0;
};

/// Options of gmcore: the users "uac" and "uas", whose other name is what the default UAC calls: sip:service@ADDRESS of
/// the gateway.
std::vector<std::string> sipp_users();

/// Registers a gmue as that user, notes its SAs, ends it without a word to the network, and puts the SAs back with
/// ip(8).
ProtectedPorts hand_over(Lab& lab, const std::string& user, const Access& access, int port_us);

/// Calls of SIPp's built-in UAC to SIPp's built-in UAS, unchanged, or of the scenarios in sipp/, which follow
/// Record-Route.
struct SippCalls {
    int calls = 100;
    int rate = 20;  ///< per second
    bool follows_routes = false;
};
/// The number of calls and the rate of the run: GMGATE_SIPP_CALLS and GMGATE_SIPP_RATE, else `otherwise`.
SippCalls sipp_calls(SippCalls otherwise);

/// Registers both, makes the calls and checks: every one of them went well on both sides, everything on the access link
/// was ESP, and no kernel lost a datagram. `lab` has a core with sipp_users().
void check_sipp_calls(Lab& lab, const Access& access, SippCalls wish);

}  // namespace gmgate::test
