// Records on a socket whose TLS the kernel does: data with send and recvmsg, everything else by control message. Never
// waits.
#pragma once

#include <sys/types.h>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "ktls/types.h"

namespace gmgate::ktls {

/// What the next records are. One call stops where the kind changes.
enum class RecordKind : std::uint8_t {
    data,     ///< `size` bytes, perhaps of several records
    nothing,  ///< no whole record has come yet
    empty,    ///< a record without data: legal (RFC 8446 §5.1), and says nothing
    end,      ///< TCP ended without close_notify
    close_notify,
    warning,         ///< an alert to be passed over
    alert,           ///< fatal: `alert` says which
    session_ticket,  ///< NewSessionTicket (RFC 8446 §4.6.1)
    key_update,      ///< RFC 8446 §4.6.3: what follows is under a key that the kernel does not have yet
    renegotiation,   ///< TLS 1.2 ClientHello or HelloRequest
    unexpected,      ///< a record or handshake message that has no place after the handshake
    bad_tag,         ///< a record failed authentication
    oversized,
    bad_version,
    failed,  ///< `error`
};

struct Received {
    RecordKind kind = RecordKind::nothing;
    std::size_t size = 0;
    std::uint8_t alert = 0;
    bool update_requested = false;  ///< of a key_update: the peer wants new keys of us as well
    int error = 0;
};

/// The one way to read: a read without control space would fail at the first alert (kernel 6.1: EIO). Bytes whose
/// record type the kernel does not report are never taken for data. `buffer` holds a whole record (16 KiB or more).
Received receive_records(int fd, std::span<char> buffer);
/// How many bytes the kernel took; negative: -errno (-EAGAIN: none now).
ssize_t send_data(int fd, std::string_view bytes);

/// RFC 8446 §6.
enum class Alert : std::uint8_t {
    close_notify = 0,
    unexpected_message = 10,
    bad_record_mac = 20,
    record_overflow = 22,
    protocol_version = 70,
    internal_error = 80,
    no_renegotiation = 100,
};
std::string_view alert_name(std::uint8_t description);
/// Sends an alert if the socket takes it now; close_notify and no_renegotiation are warnings, the others fatal.
bool send_alert(int fd, Alert alert);
/// Sends KeyUpdate without asking for one back, RFC 8446 §4.6.3; what is sent afterwards belongs under the next keys.
/// False: not now (try again when the socket is writable), and nothing was sent.
bool send_key_update(int fd);

}  // namespace gmgate::ktls
