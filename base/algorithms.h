// The algorithm names of ipsec-3gpp (TS 33.203 Annex H): the words that SIP negotiates and XFRM programs.
#pragma once

#include <array>
#include <optional>
#include <string_view>

namespace gmgate {

/// Parameter `alg`: integrity.
enum class Alg { hmac_sha_1_96, hmac_md5_96, aes_gmac, null };
/// Parameter `ealg`: confidentiality.
enum class Ealg { aes_cbc, des_ede3_cbc, aes_gcm, null };

/// The word on the wire, lower case ("hmac-sha-1-96").
std::string_view to_string(Alg alg);
std::string_view to_string(Ealg ealg);
/// Case-insensitive (RFC 3261 §7.3.1); nullopt for a word we do not know.
std::optional<Alg> parse_alg(std::string_view word);
std::optional<Ealg> parse_ealg(std::string_view word);

/// One combination of both, the unit of choice (B-32).
struct AlgorithmPair {
    Alg alg{};
    Ealg ealg{};
    friend bool operator==(const AlgorithmPair&, const AlgorithmPair&) = default;
};

/// B-62: aes-gcm only with alg null and the other way round; aes-gmac only with ealg null; null with null never.
bool is_valid(AlgorithmPair pair);
/// True where the pair encrypts.
bool is_confidential(AlgorithmPair pair);
/// hmac-md5-96, des-ede3-cbc: removed from Annex H in Rel-13, "MUST NOT"/"SHOULD NOT" of RFC 8221 (B-60, B-74).
bool is_deprecated(AlgorithmPair pair);

/// All valid pairs, the gateway's default order of preference (strongest first, the weak end last).
inline constexpr std::array<AlgorithmPair, 8> kDefaultPreference{{
    {Alg::null, Ealg::aes_gcm},
    {Alg::hmac_sha_1_96, Ealg::aes_cbc},
    {Alg::aes_gmac, Ealg::null},
    {Alg::hmac_sha_1_96, Ealg::des_ede3_cbc},
    {Alg::hmac_sha_1_96, Ealg::null},
    {Alg::hmac_md5_96, Ealg::aes_cbc},
    {Alg::hmac_md5_96, Ealg::des_ede3_cbc},
    {Alg::hmac_md5_96, Ealg::null},
}};

}  // namespace gmgate
