#include "ktls/record_io.h"

#include <array>
#include <cerrno>
#include <cstring>

#include <linux/tls.h>
#include <sys/socket.h>

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

namespace gmgate::ktls {
namespace {

// ContentType, RFC 8446 §5.1
constexpr unsigned char kAlert = 21, kHandshake = 22, kApplicationData = 23;
// HandshakeType, RFC 8446 §4 and RFC 5246 §7.4
constexpr unsigned char kHelloRequest = 0, kClientHello = 1, kNewSessionTicket = 4, kKeyUpdate = 24;
// AlertDescription
constexpr unsigned char kUserCanceled = 90;

Received judge_alert(std::span<const char> record) {
    Received out;
    if (record.size() != 2) {
        out.kind = RecordKind::unexpected;
        return out;
    }
    const auto level = static_cast<unsigned char>(record[0]);
    out.alert = static_cast<std::uint8_t>(record[1]);
    if (out.alert == static_cast<std::uint8_t>(Alert::close_notify)) out.kind = RecordKind::close_notify;
    else if (out.alert == kUserCanceled ||
             (level == 1 && out.alert == static_cast<std::uint8_t>(Alert::no_renegotiation)))
        out.kind = RecordKind::warning;
    else out.kind = RecordKind::alert;  // RFC 8446 §6: any other alert is fatal, whatever its level says
    return out;
}

// A record may hold several messages. One that goes on in the next record is none we wait for, and nothing may follow a
// KeyUpdate, whose successor is under other keys (RFC 8446 §5.1).
Received judge_handshake(std::span<const char> record) {
    Received out;
    out.kind = RecordKind::unexpected;
    while (!record.empty()) {
        const auto byte = [&](std::size_t i) {
            return static_cast<std::size_t>(static_cast<unsigned char>(record[i]));
        };
        const std::size_t length = record.size() < 4 ? 0 : 4 + (byte(1) << 16 | byte(2) << 8 | byte(3));
        if (length == 0) return {.kind = RecordKind::unexpected};
        switch (byte(0)) {
            case kKeyUpdate:
                if (length != 5 || record.size() != 5 || byte(4) > 1) return {.kind = RecordKind::unexpected};
                out.kind = RecordKind::key_update;
                out.update_requested = byte(4) == 1;
                return out;
            case kHelloRequest:
            case kClientHello:
                return {.kind = RecordKind::renegotiation};
            case kNewSessionTicket:
                out.kind = RecordKind::session_ticket;
                break;
            default:
                return {.kind = RecordKind::unexpected};
        }
        if (length > record.size()) return {.kind = RecordKind::unexpected};
        record = record.subspan(length);
    }
    return out;
}

bool send_control(int fd, unsigned char type, std::span<unsigned char> body) {
    alignas(cmsghdr) std::array<char, CMSG_SPACE(1)> control{};
    iovec part{body.data(), body.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_TLS;
    header->cmsg_type = TLS_SET_RECORD_TYPE;
    header->cmsg_len = CMSG_LEN(1);
    *CMSG_DATA(header) = type;
    return ::sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) == static_cast<ssize_t>(body.size());
}

}  // namespace

Received receive_records(int fd, std::span<char> buffer) {
    alignas(cmsghdr) std::array<char, CMSG_SPACE(1)> control{};
    iovec part{buffer.data(), buffer.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    ssize_t count = 0;
    do {
        count = ::recvmsg(fd, &message, MSG_DONTWAIT);
    } while (count < 0 && errno == EINTR);

    Received out;
    if (count < 0) {
        out.error = errno;
        switch (out.error) {
            case EAGAIN:
                out.kind = RecordKind::nothing;
                break;
            case EBADMSG:
                out.kind = RecordKind::bad_tag;
                break;
            case EMSGSIZE:
                out.kind = RecordKind::oversized;
                break;
            case EINVAL:
                out.kind = RecordKind::bad_version;
                break;
            case EKEYEXPIRED:
                out.kind = RecordKind::key_update;
                break;  // kernel 6.14 and later, after it has shown us the KeyUpdate
            default:
                out.kind = RecordKind::failed;
                break;
        }
        return out;
    }
    const cmsghdr* header = CMSG_FIRSTHDR(&message);
    const bool typed = header != nullptr && header->cmsg_level == SOL_TLS && header->cmsg_type == TLS_GET_RECORD_TYPE;
    if (!typed) {
        out.kind = count == 0 ? RecordKind::end : RecordKind::unexpected;
        return out;
    }
    const auto size = static_cast<std::size_t>(count);
    switch (*CMSG_DATA(header)) {
        case kApplicationData:
            out.kind = size == 0 ? RecordKind::empty : RecordKind::data;
            out.size = size;
            return out;
        case kAlert:
            return judge_alert(buffer.first(size));
        case kHandshake:
            return judge_handshake(buffer.first(size));
        default:
            out.kind = RecordKind::unexpected;
            return out;
    }
}

ssize_t send_data(int fd, std::string_view bytes) {
    ssize_t count = 0;
    do {
        count = ::send(fd, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (count < 0 && errno == EINTR);
    return count < 0 ? -errno : count;
}

bool send_alert(int fd, Alert alert) {
    const bool warning = alert == Alert::close_notify || alert == Alert::no_renegotiation;
    std::array<unsigned char, 2> body{static_cast<unsigned char>(warning ? 1 : 2), static_cast<unsigned char>(alert)};
    return send_control(fd, kAlert, body);
}

bool send_key_update(int fd) {
    std::array<unsigned char, 5> message{kKeyUpdate, 0, 0, 1, 0};  // update_not_requested
    return send_control(fd, kHandshake, message);
}

std::string_view alert_name(std::uint8_t description) {
    switch (description) {
        case 0:
            return "close_notify";
        case 10:
            return "unexpected_message";
        case 20:
            return "bad_record_mac";
        case 22:
            return "record_overflow";
        case 40:
            return "handshake_failure";
        case 42:
            return "bad_certificate";
        case 47:
            return "illegal_parameter";
        case 50:
            return "decode_error";
        case 51:
            return "decrypt_error";
        case 70:
            return "protocol_version";
        case 80:
            return "internal_error";
        case 90:
            return "user_canceled";
        case 100:
            return "no_renegotiation";
        default:
            return "another";
    }
}

}  // namespace gmgate::ktls
