// What OpenSSL gives back is overwritten first.
#pragma once

namespace gmgate::ktls {

/// For the whole process, from now on. OpenSSL cleanses keys and master secrets, but frees a session's traffic secrets
/// of TLS 1.3 as they are (SSL_free of 3.0), and they would stay in the heap for as long as nobody needs the place. To
/// be called before anything else of OpenSSL; false: it was too late, and nothing has changed.
bool wipe_what_openssl_frees();

}  // namespace gmgate::ktls
