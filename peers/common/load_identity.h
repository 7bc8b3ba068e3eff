// How the n-th generated subscriber is made; gmcore --users and gmue --count agree through this file.
#pragma once

#include "bytes.h"

#include <string>

namespace gmgate::peers {

/// K, OPc and IMSI of the first generated user, and the realm: the defaults of both programs. K and OPc are TS 35.208
/// set 1's: published values, so nobody takes them for a secret.
inline constexpr std::string_view kDefaultK = "465b5ce8b199b49faa5f0a2ee238a6bc";
inline constexpr std::string_view kDefaultOpc = "cd63cb71954a9f4e48a5994e37a02baf";
inline constexpr std::string_view kDefaultImsi = "001010000000001";
inline constexpr std::string_view kDefaultRealm = "ims.mnc001.mcc001.3gppnetwork.org";

/// The IMSI `index` above the first; the number of digits stays.
[[nodiscard]] std::string imsi_at(std::string_view first, std::size_t index);
/// K with `index` xor-ed into its last four octets.
[[nodiscard]] Key<16> key_at(const Key<16>& k, std::size_t index);

}  // namespace gmgate::peers
