// The keys of the SAs as the kernel has them. Only gmgate-export-keys links this: in gmgated no key comes back.
#pragma once

#include <cstdint>
#include <vector>

#include "base/algorithms.h"
#include "base/endpoint.h"
#include "base/error.h"
#include "base/types.h"
#include "xfrm/sa.h"

namespace gmgate::xfrm {

struct SaKeys {
    SaId id;
    Address source;
    AlgorithmPair pair;
    std::vector<std::uint8_t> encryption{};  ///< of aes-gcm and aes-gmac: key and salt; empty for null
    std::vector<std::uint8_t> integrity{};   ///< empty for an AEAD
};

/// All ESP SAs with this reqid in the network namespace of the caller, who needs CAP_NET_ADMIN. Reaction::refused: the
/// kernel gives no keys (lockdown), or does not answer.
Result<std::vector<SaKeys>> read_sa_keys(ReqId reqid);

}  // namespace gmgate::xfrm
