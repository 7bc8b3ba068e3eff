// Wireshark's table of ESP SAs (file esp_sa of its configuration, "ESP SAs" in its preferences).
#pragma once

#include <string>

#include "xfrm/export/sa_keys.h"

namespace gmgate::lab {

/// One line with its end: "IPv4","10.1.0.2","10.1.0.1","0x10000001","AES-CBC [RFC3602]","0x…","HMAC-SHA-1-96
/// [RFC2404]","0x…". Wireshark 4.0 and later. It knows no AES-GMAC: such an SA is told as unencrypted, which is read
/// when the IV is gone from the packets (without_gmac_iv).
std::string esp_sa_line(const xfrm::SaKeys& keys);

}  // namespace gmgate::lab
