// Inside of ktls: versions, cipher suites and groups of an endpoint, within what TS 33.210 §6.2 allows and a kernel can
// carry.
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "ktls/context_state.h"

struct ssl_method_st;

namespace gmgate::ktls {

/// What one endpoint narrows down.
struct TlsRules {
    bool allow_tls12 = true;
    bool allow_tls13 = true;
    std::vector<std::string> ciphers{};  ///< OpenSSL's names, most preferred first; empty: all that we have
    std::vector<std::string> groups{};  ///< likewise; empty: the hybrid with ML-KEM where the library has it, X25519, …
};

/// A context with those rules and what server and client have in common. Reaction::refused names what is unknown, and
/// what there is.
Result<SslContextPtr> make_context(const ssl_method_st* method, const TlsRules& rules);

}  // namespace gmgate::ktls
