// From OpenSSL to the kernel: after it the socket is a plain socket and the OpenSSL object can go.
#pragma once

#include "base/error.h"
#include "ktls/key_schedule.h"
#include "ktls/types.h"

namespace gmgate::ktls {

class Session;

/// Whether this kernel can carry both directions with every cipher of ours: tried on a loopback connection with keys of
/// zeros. Slow the first time (modules are loaded), so for start-up, where it also spares the first phones that wait.
/// The error says what is missing and how to get it.
Result<void> ktls_available();
/// Asks the kernel for its module `tls`, which takes CAP_NET_ADMIN; what is there may be used without. Nothing happens
/// when it cannot be had.
void load_module();
/// Whether this kernel takes new keys for a TLS 1.3 connection (6.14 and later), tried in the same way.
Result<void> rekey_available();

/// Right after a finished handshake on a Session made with `kernel`, before any read. True: both directions are in the
/// kernel and the Session was retired and may be destroyed. False: none is, OpenSSL goes on (reason in the Session's
/// cipher or the peer's options). Error: one direction is in and the other is not; there is no way back, the connection
/// must end. `keep`, when given, gets the two traffic secrets of a TLS 1.3 connection that went to the kernel, for
/// rekeying.
Result<bool> hand_off(Session& session, int fd, TrafficSecrets* keep = nullptr);

}  // namespace gmgate::ktls
