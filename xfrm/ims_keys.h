// ESP keys of an ipsec-3gpp agreement from CK and IK (TS 33.203 Annex I).
#pragma once

#include "base/algorithms.h"
#include "base/error.h"
#include "base/secret.h"

namespace gmgate::xfrm {

/// CK or IK: 128 bits each (TS 33.102 §6.3.7).
using Key128 = Secret<16>;

/// The keys of all four SAs of a set (they share one pair, B-7). For aes-gcm and aes-gmac `combined` holds the 16-octet
/// key and the 4-octet salt that the kernel's AEAD wants; the other two are then empty.
struct EspKeys {
    Secret<20> integrity;        ///< hmac-md5-96: 16 octets, hmac-sha-1-96: 20
    Secret<24> confidentiality;  ///< aes-cbc: 16, des-ede3-cbc: 24, null: 0
    Secret<20> combined;         ///< aes-gcm, aes-gmac: 20
};

/// B-70, B-71. Fails with Reaction::internal when the pair is not valid (B-62) or a key has not 16 octets.
Result<EspKeys> derive_esp_keys(AlgorithmPair pair, const Key128& ck, const Key128& ik);

}  // namespace gmgate::xfrm
