// Fuzz target: a netlink datagram as if the kernel had sent it. Whatever is read of it is consistent in itself, and
// reading stops where the first malformed message is.
#include <cstring>
#include <vector>

#include <linux/netlink.h>

#include "tests/fuzz/require.h"
#include "xfrm/netlink/codec.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
    using namespace gmgate::xfrm;
    using gmgate::fuzz::require;
    // As the socket's buffer is aligned.
    std::vector<std::uint32_t> aligned(size / 4 + 1);
    if (size > 0) std::memcpy(aligned.data(), data, size);
    const std::span<const std::uint8_t> datagram(reinterpret_cast<const std::uint8_t*>(aligned.data()), size);
    std::size_t replies = 0;
    const bool is_whole = decode(datagram, [&](Reply& reply) {
        ++replies;
        require(reply.code >= 0, "an errno is positive");
        require(reply.text.size() <= size, "the kernel's words are in the datagram");
        require(!reply.sa || reply.kind == Reply::Kind::sa, "an SA comes of an SA's message");
        require(!reply.policy || reply.kind == Reply::Kind::policy, "a policy comes of a policy's message");
        if (reply.sa && reply.sa->is_known_kind) {
            const auto& sa = reply.sa->report.sa;
            require(sa.source.address.family() == sa.id.destination.family(), "both ends of an SA are of one family");
            require(sa.source.port.value != 0, "an SA of our kind has ports");
        }
        if (reply.policy && reply.policy->is_guard_shaped)
            require(reply.policy->guard.gateway.port.value != 0, "a guard has a port");
    });
    require(replies <= size / sizeof(nlmsghdr), "a reply has a header");
    std::size_t again = 0;
    require(decode(datagram, [&](Reply&) { ++again; }) == is_whole && again == replies, "reading changes nothing");
    return 0;
}
