// What the start-up probe tries and how it explains a refusal.
#pragma once

#include <string>

#include "xfrm/kernel.h"

namespace gmgate::xfrm {

/// A set whose first SA is a dummy between documentation addresses (RFC 5737, RFC 3849) with a random SPI: no packet
/// ever matches it. Keys are random.
SetRequest probe_request(AlgorithmPair pair, Family family);
/// "hmac-sha-1-96 with aes-cbc, IPv6".
std::string probe_feature(AlgorithmPair pair, Family family);
/// The modules behind an errno of NEWSA: EPROTONOSUPPORT is a missing ESP, anything else a missing algorithm.
std::string probe_modules(AlgorithmPair pair, Family family, int code);

}  // namespace gmgate::xfrm
