// Security-Client, Security-Server and Security-Verify (RFC 3329, TS 33.203 Annex H) as the phone writes and reads
// them.
#pragma once

#include "algorithms.h"
#include "sip_uri.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace gmgate::peers {

/// One sec-mechanism with its parameters in order.
struct SecMechanism {
    std::string name;
    Parameters parameters;
    [[nodiscard]] static SecMechanism parse(std::string_view text);
    [[nodiscard]] std::string to_string() const { return name + parameters.to_string(); }
};

/// SPIs and ports of one end; TS 33.203 §7.1.
struct SecEnd {
    std::uint32_t spi_c = 0;
    std::uint32_t spi_s = 0;
    std::uint16_t port_c = 0;
    std::uint16_t port_s = 0;
};

/// How a phone writes Security-Client.
struct OfferStyle {
    /// One mechanism; alg, ealg, mod, spi-c, spi-s, port-c and port-s in braces are filled in.
    std::string_view mechanism =
        "ipsec-3gpp;alg={alg};ealg={ealg};prot=esp;mod={mod};spi-c={spi-c};spi-s={spi-s};port-c={port-c};port-s={port-s}";
    std::string_view between = ",";
    std::string_view behind;  ///< at the end: ",tls;q=0.2"
};
/// Security-Client with one entry per pair, all with the same SPIs and ports (B-30). `nat`: and one with
/// mod=UDP-enc-tun, also where the style has no place for it.
[[nodiscard]] std::string security_client(const std::vector<AlgPair>& offer, const SecEnd& ue, bool nat = false,
                                          const OfferStyle& style = {});

/// What the phone chose from a Security-Server list.
struct SecChoice {
    AlgPair pair;
    SecEnd network;
    bool udp_enc_tun = false;  ///< mod=UDP-enc-tun
};
/// The first entry of the server's list (highest q first, then order) that the phone offered and whose values are sane:
/// SPIs not reserved, different from each other and from the phone's, ports different and neither 5060 nor 5061 (B-11,
/// B-13, B-36).
[[nodiscard]] Result<SecChoice> choose(const std::vector<std::string>& security_server,
                                       const std::vector<AlgPair>& offer, const SecEnd& ue, bool nat = false);

}  // namespace gmgate::peers
