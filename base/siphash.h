// A keyed hash for short texts: who does not know the key can neither make nor predict a value. SipHash-2-4 (Aumasson,
// Bernstein 2012).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace gmgate {

using SipHashKey = std::array<std::uint8_t, 16>;

/// 64 bits over `text`. For marks that live as long as the process; key derivation and digests have their own
/// functions.
std::uint64_t siphash(const SipHashKey& key, std::string_view text);
/// The same as 16 lower-case hexadecimal digits.
std::string siphash_hex(const SipHashKey& key, std::string_view text);

}  // namespace gmgate
