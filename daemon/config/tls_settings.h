// What a [[tls-profile]] narrows down or adds beside its certificate. Read again from the file by who opens the ports,
// so that nobody else depends on it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "daemon/config/config.h"

namespace gmgate::daemon {

struct TlsSettings {
    bool tls12 = true;
    bool tls13 = true;
    std::vector<std::string> ciphers{};  ///< OpenSSL's names, most preferred first; empty: all that a kernel can carry
    std::vector<std::string> groups{};   ///< likewise; empty: the library's hybrid with ML-KEM, X25519, P-256, P-384
    bool mutual_authenticate = false;    ///< phones must show a certificate: against TS 33.203 §O.2.1
    std::string trusted_ca{};            ///< PEM: who may have signed it; empty: the system's
    std::vector<std::string> client_domains{};  ///< SIP domains, one of which it must be for (RFC 5922); empty: any
    std::vector<std::string> ocsp_responses{};  ///< DER files in the order of the certificates; "" for none
    std::string ticket_key_file{};              ///< shared with other processes and nodes; empty: random keys
};

/// Those of a profile of a file that load_config() has found good; the defaults when it says nothing of them.
Result<TlsSettings> load_tls_settings(const Config& config, std::string_view profile);

class Section;
/// For parse_config(): reads the keys of one [[tls-profile]] that has that many certificates, and says what is wrong.
void read_tls_settings(Section& section, std::size_t certificates, TlsSettings& settings);

}  // namespace gmgate::daemon
