#include "lab/esp_sa.h"

#include <fmt/format.h>

namespace gmgate::lab {
namespace {

std::string hex(const std::vector<std::uint8_t>& key) {
    if (key.empty()) return {};
    std::string out = "0x";
    for (const auto octet : key) out += fmt::format("{:02x}", octet);
    return out;
}

std::string_view cipher_of(Ealg ealg) {
    switch (ealg) {
        case Ealg::aes_cbc:
            return "AES-CBC [RFC3602]";
        case Ealg::des_ede3_cbc:
            return "TripleDES-CBC [RFC2451]";
        case Ealg::aes_gcm:
            return "AES-GCM with 16 octet ICV [RFC4106]";
        case Ealg::null:
            return "NULL";
    }
    return "NULL";
}

std::string_view integrity_of(Alg alg) {
    switch (alg) {
        case Alg::hmac_sha_1_96:
            return "HMAC-SHA-1-96 [RFC2404]";
        case Alg::hmac_md5_96:
            return "HMAC-MD5-96 [RFC2403]";
        case Alg::aes_gmac:
            return "ANY 128 bit authentication [no checking]";
        case Alg::null:
            return "NULL";
    }
    return "NULL";
}

}  // namespace

std::string esp_sa_line(const xfrm::SaKeys& keys) {
    return fmt::format("\"{}\",\"{}\",\"{}\",\"0x{:08x}\",\"{}\",\"{}\",\"{}\",\"{}\"\n",
                       keys.id.destination.is_v6() ? "IPv6" : "IPv4", keys.source.to_string(),
                       keys.id.destination.to_string(), keys.id.spi.value, cipher_of(keys.pair.ealg),
                       keys.pair.ealg == Ealg::null ? "" : hex(keys.encryption), integrity_of(keys.pair.alg),
                       hex(keys.integrity));
}

}  // namespace gmgate::lab
