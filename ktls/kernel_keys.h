// Keys into a socket's kernel TLS: the first ones and, with a kernel from 6.14 on, the next ones.
#pragma once

#include "base/error.h"
#include "ktls/key_schedule.h"
#include "ktls/types.h"

namespace gmgate::ktls {

enum class Direction : std::uint8_t { send, receive };

/// What the kernel itself says of a connection, without the keys.
struct KernelSession {
    Version version = Version::tls13;
    Cipher cipher = Cipher::aes_128_gcm;
    bool sends = false, receives = false;  ///< which directions it carries
};
/// Reaction::refused: it carries none, or with something that is not ours.
Result<KernelSession> kernel_session(int fd);

/// TLS 1.3 keys whose first record is number 0. linux/tls.h: the twelve IV bytes are salt (4) and iv (8) for AES-GCM,
/// iv (12) for ChaCha20. A second call for a direction is a rekey (EBUSY before kernel 6.14). Reaction::refused with
/// the reason.
Result<void> set_kernel_key(int fd, Direction direction, Cipher cipher, const TrafficKeys& keys);

/// RFC 8446 §7.2: replaces the secret of a direction by the next one and gives its keys to the kernel. On an error the
/// secret is what it was.
Result<void> rekey(int fd, Direction direction, Cipher cipher, TrafficSecret& secret);

}  // namespace gmgate::ktls
