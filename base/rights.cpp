#include "base/rights.h"

#include <array>
#include <cerrno>
#include <cstring>

#include <sys/socket.h>

namespace gmgate {

int send_with_descriptor(int socket, std::string_view bytes, int descriptor) {
    iovec piece{const_cast<char*>(bytes.data()), bytes.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    if (descriptor >= 0) {
        message.msg_control = control.data();
        message.msg_controllen = control.size();
        auto* const header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof descriptor);
        std::memcpy(CMSG_DATA(header), &descriptor, sizeof descriptor);
    }
    while (::sendmsg(socket, &message, MSG_NOSIGNAL) < 0)
        if (errno != EINTR) return errno;
    return 0;
}

WithDescriptor receive_with_descriptor(int socket, void* bytes, std::size_t room, int flags) {
    iovec piece{bytes, room};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    WithDescriptor got;
    do got.size = ::recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC);
    while (got.size < 0 && errno == EINTR);
    const auto* const header = got.size < 0 ? nullptr : CMSG_FIRSTHDR(&message);
    if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
        std::memcpy(&got.descriptor, CMSG_DATA(header), sizeof got.descriptor);
    return got;
}

}  // namespace gmgate
