// Inside of ktls: OCSP responses that a server shows with its certificate (RFC 6066 §8), from files that somebody else
// keeps fresh.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "base/error.h"

struct ssl_ctx_st;
struct x509_st;
struct stack_st_X509;

namespace gmgate::ktls {

struct Staple {
    const x509_st* certificate = nullptr;  ///< owned by the context that shows it
    std::vector<unsigned char> octets;     ///< DER
    std::chrono::system_clock::time_point ends = std::chrono::system_clock::time_point::max();  ///< nextUpdate
};

/// The response in that file for that certificate, whose issuers `chain` has. One whose time is over is read all the
/// same: it is not shown. Reaction::refused with file, reason and fix: not readable, no OCSP response, for another
/// certificate, not "good", not signed by the issuer (where the chain names him).
Result<Staple> load_staple(const std::string& file, x509_st* certificate, stack_st_X509* chain);

/// Handshakes of this context show the staple of the certificate that they use, until it ends. `staples` outlives every
/// handshake.
void show_staples(ssl_ctx_st* context, const std::vector<Staple>& staples);

}  // namespace gmgate::ktls
