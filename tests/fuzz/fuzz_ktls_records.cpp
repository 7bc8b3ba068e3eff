// Fuzz target: records as the kernel's TLS shows them: the first octet is the record type of the control message (0:
// there is none), the rest the record. recvmsg is the target's own.
#include <sys/socket.h>
#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include <linux/tls.h>

#include "ktls/record_io.h"
#include "tests/fuzz/require.h"

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

namespace {

unsigned char g_type = 0;
std::vector<char> g_record;  // exactly as long as the record

}  // namespace

/// In place of the C library's: there is no kernel TLS here.
extern "C" ssize_t recvmsg(int, msghdr* message, int) {
    const auto size = std::min(message->msg_iov->iov_len, g_record.size());
    if (size > 0) std::memcpy(message->msg_iov->iov_base, g_record.data(), size);
    if (g_type == 0) {
        message->msg_controllen = 0;
        return static_cast<ssize_t>(size);
    }
    auto* header = reinterpret_cast<cmsghdr*>(message->msg_control);
    header->cmsg_level = SOL_TLS;
    header->cmsg_type = TLS_GET_RECORD_TYPE;
    header->cmsg_len = CMSG_LEN(1);
    *CMSG_DATA(header) = g_type;
    message->msg_controllen = CMSG_SPACE(1);
    return static_cast<ssize_t>(size);
}

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
    using namespace gmgate::ktls;
    using gmgate::fuzz::require;
    if (size == 0) return 0;
    g_type = data[0];
    g_record.assign(data + 1, data + size);
    std::vector<char> buffer(std::max<std::size_t>(g_record.size(), 1));
    const auto got = receive_records(0, buffer);
    const auto octet = [&](std::size_t i) {
        return i < g_record.size() ? static_cast<unsigned char>(g_record[i]) : 256U;
    };
    require((got.kind == RecordKind::data) == (g_type == 23 && !g_record.empty()), "data is application data alone");
    require(got.size == (got.kind == RecordKind::data ? g_record.size() : 0), "and all of it");
    require(got.kind != RecordKind::end || (g_type == 0 && g_record.empty()), "TCP's end has no record");
    require((got.kind == RecordKind::close_notify) == (g_type == 21 && g_record.size() == 2 && octet(1) == 0),
            "close_notify is what RFC 8446 §6.1 says");
    require(got.kind != RecordKind::alert || (g_type == 21 && got.alert == octet(1)), "an alert is the record's");
    require(got.kind != RecordKind::key_update ||
                (g_type == 22 && octet(g_record.size() - 5) == 24 && octet(g_record.size() - 1) < 2),
            "a KeyUpdate ends its record (RFC 8446 §5.1)");
    require(got.kind != RecordKind::session_ticket || (g_type == 22 && octet(0) == 4), "a ticket is a ticket");
    require(got.kind != RecordKind::failed && got.kind != RecordKind::bad_tag, "the kernel reported no error");
    return 0;
}
