// A RE-CREATION, for comparison, of how a widespread P-CSCF module programs the kernel: our own code, made from
// observed behaviour (what goes over its netlink socket and what the kernel holds afterwards), none of theirs. Per
// registration a new socket, eight times NEWSA and NEWPOLICY, each in a sendto of its own, no acknowledgement asked
// for, nothing read, socket closed. The kernel refuses the last four SAs, which repeat (destination, SPI) of the first
// four, so that 4 SAs and 8 policies remain.
#pragma once

#include "xfrm/sa.h"

namespace gmgate::bench {

/// Messages per registration: 8 × NEWSA, 8 × NEWPOLICY.
inline constexpr std::size_t kSeparateSends = 16;

/// One registration that way, hmac-sha-1-96 with aes-cbc, IPv4. Like the original it looks at no answer.
void install_with_separate_sends(const xfrm::SetParameters& set, const xfrm::EspKeys& keys);

/// Removes all SAs and policies of the network namespace.
void flush_kernel();

struct KernelContents {
    std::uint32_t sas = 0, policies = 0;
};
/// What the network namespace holds (GETSADINFO, GETSPDINFO).
KernelContents kernel_contents();

}  // namespace gmgate::bench
