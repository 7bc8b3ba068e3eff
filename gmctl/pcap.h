// Decrypted SIP for Wireshark: a classic pcap file of link type RAW, each message in an IP and UDP header made up from
// its endpoints (whatever transport carried it).
#pragma once

#include <string>
#include <vector>

#include "gmctl/ladder.h"

namespace gmgate::gmctl {

std::string pcap_header();
/// One record; empty when the endpoints cannot be read. A message that does not fit a datagram is cut, which the record
/// says.
std::string pcap_record(const LadderMessage& message);

}  // namespace gmgate::gmctl
