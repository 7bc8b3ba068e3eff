// The table from negotiated algorithms (TS 33.203 Annex H) to the kernel's transforms (net/xfrm/xfrm_algo.c).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "base/algorithms.h"

namespace gmgate::xfrm {

/// What one pair is called in the kernel. Either `aead` is set, or `auth` and `crypt` are (ESP needs a cipher, even
/// "null").
struct KernelAlgorithms {
    AlgorithmPair pair;
    std::string_view auth{};  ///< XFRMA_ALG_AUTH_TRUNC: "hmac(sha1)"
    std::uint32_t auth_key_bits = 0;
    std::uint32_t auth_trunc_bits = 0;
    std::string_view crypt{};  ///< XFRMA_ALG_CRYPT: "cbc(aes)"
    std::uint32_t crypt_key_bits = 0;
    std::string_view aead{};          ///< XFRMA_ALG_AEAD: "rfc4106(gcm(aes))"
    std::uint32_t aead_key_bits = 0;  ///< the salt counts: 128 + 32 (crypto/gcm.c takes the last 4 octets off)
    std::uint32_t icv_bits = 0;
    std::string_view modules{};  ///< what modprobe wants when the kernel does not find it, besides esp4 or esp6
};

/// The row of a pair; nullptr when the pair is not valid (B-62).
const KernelAlgorithms* find_algorithms(AlgorithmPair pair);
/// The pair behind the names of a dumped SA (empty for an absent attribute); nullopt for an SA that is not of our kind.
std::optional<AlgorithmPair> pair_from_names(std::string_view auth, std::string_view crypt, std::string_view aead);
/// All rows.
std::span<const KernelAlgorithms> all_algorithms();

}  // namespace gmgate::xfrm
