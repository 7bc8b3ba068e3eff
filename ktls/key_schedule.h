// TLS 1.3 traffic secrets to keys (RFC 8446 §7.3), for the one direction that OpenSSL 3.0 does not hand to the kernel.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "base/error.h"
#include "base/secret.h"
#include "ktls/types.h"

namespace gmgate::ktls {

/// client_ or server_application_traffic_secret_0: as long as the suite's hash.
using TrafficSecret = Secret<48>;

struct TrafficKeys {
    Secret<32> key;
    Secret<12> iv;
};

/// HKDF-Expand-Label(secret, label, "", length) of RFC 8446 §7.1; the hash follows from the secret's length (32:
/// SHA-256, 48: SHA-384). Fills `out`; false when OpenSSL refuses.
bool expand_label(const TrafficSecret& secret, std::string_view label, std::span<std::uint8_t> out);
/// Key and IV of one direction.
Result<TrafficKeys> traffic_keys(const TrafficSecret& secret, Cipher cipher);

/// The secrets of both directions, as one end sees them.
struct TrafficSecrets {
    TrafficSecret send, receive;
};

/// Filled during the handshake.
struct KeptSecret {
    Role role = Role::server;
    TrafficSecrets secrets;
};
/// OpenSSL's keylog callback: tells log_key_line() (key_log.h), and keeps the application traffic secrets in the
/// KeptSecret that is the SSL's app data (none: nothing is kept), and lets everything else go.
void keep_traffic_secret(const ssl_st* ssl, const char* line);

}  // namespace gmgate::ktls
