// The algorithms of mechanism ipsec-3gpp, TS 33.203 Annex H, as a phone sees them.
#pragma once

#include "error.h"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace gmgate::peers {

enum class Alg { hmac_md5_96, hmac_sha_1_96, aes_gmac, null };
enum class Ealg { null, des_ede3_cbc, aes_cbc, aes_gcm };

/// One combination of integrity and encryption algorithm.
struct AlgPair {
    Alg alg = Alg::hmac_sha_1_96;
    Ealg ealg = Ealg::null;
    bool operator==(const AlgPair&) const = default;
};

[[nodiscard]] std::string_view name(Alg alg);
[[nodiscard]] std::string_view name(Ealg ealg);
/// Case-insensitive (RFC 3261 §7.3.1).
[[nodiscard]] std::optional<Alg> alg_from(std::string_view text);
[[nodiscard]] std::optional<Ealg> ealg_from(std::string_view text);

/// "null" integrity only with aes-gcm, aes-gcm only with "null", aes-gmac brings its own cipher (null). TS 33.203 Annex
/// H.
[[nodiscard]] bool is_valid(AlgPair pair);
/// "alg/ealg,alg/ealg" in order of preference; refuses unknown names, and combinations that are not valid unless told
/// otherwise.
[[nodiscard]] Result<std::vector<AlgPair>> parse_offer(std::string_view text, bool allow_invalid);
/// Every valid combination, strongest first.
[[nodiscard]] std::vector<AlgPair> all_pairs();
[[nodiscard]] std::string to_string(AlgPair pair);

}  // namespace gmgate::peers
