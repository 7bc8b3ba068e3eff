#include "xfrm/netlink/monitor.h"

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/xfrm.h>
#include <netinet/in.h>
#include <netlink/attr.h>
#include <netlink/errno.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <sys/socket.h>
#include <asio/posix/stream_descriptor.hpp>

#include "xfrm/netlink/fixed_part.h"
#include "xfrm/netlink/kernel_address.h"
#include "xfrm/netlink/policy_selector.h"

namespace gmgate::xfrm {
namespace {

constexpr int kReceiveBuffer = 4 * 1024 * 1024;
constexpr std::size_t kDatagramLimit = 64 * 1024;

std::optional<KernelEvent> event_of_sa(KernelEvent::Kind kind, const xfrm_usersa_info& info, const Ownership& owner) {
    if (ReqId{info.reqid} != owner.reqid || info.id.proto != IPPROTO_ESP) return std::nullopt;
    KernelEvent event;
    event.kind = kind;
    event.sa = {address_from(&info.id.daddr, info.family), Spi{ntohl(info.id.spi)}};
    event.mark = Mark{info.seq};
    return event;
}

GuardPolicy guard_of(const xfrm_selector& sel, std::uint8_t dir) {
    const bool inbound = dir == XFRM_POLICY_IN;
    return {inbound ? Direction::in : Direction::out,
            inbound ? Endpoint{address_from(&sel.daddr, sel.family), Port{ntohs(sel.dport)}}
                    : Endpoint{address_from(&sel.saddr, sel.family), Port{ntohs(sel.sport)}}};
}

KernelEvent event_of_policy(KernelEvent::Kind kind, const xfrm_selector& sel, std::uint8_t dir) {
    KernelEvent event;
    event.kind = kind;
    event.guard = guard_of(sel, dir);
    if (const auto nat = nat_policy_of(sel, dir)) {
        event.is_replaced = kind == KernelEvent::Kind::policy_replaced;
        event.kind = KernelEvent::Kind::nat_policy_deleted;  // replaced: what we wrote is gone, too
        event.nat_policy = *nat;
    }
    return event;
}

std::optional<KernelEvent> read_mapping(const nlmsghdr* message, const Ownership& owner) {
    const auto told = fixed_part<xfrm_user_mapping>(message);
    if (!told || ReqId{told->reqid} != owner.reqid || told->id.proto != IPPROTO_ESP) return std::nullopt;
    const auto family = told->id.family;
    KernelEvent event;
    event.kind = KernelEvent::Kind::mapping_changed;
    event.sa = {address_from(&told->id.daddr, family), Spi{ntohl(told->id.spi)}};
    event.before = {address_from(&told->old_saddr, family), Port{ntohs(told->old_sport)}};
    event.now = {address_from(&told->new_saddr, family), Port{ntohs(told->new_sport)}};
    return event;
}

std::optional<KernelEvent> read_deleted_sa(const nlmsghdr* message, const Ownership& owner) {
    if (nlmsg_datalen(message) < static_cast<int>(sizeof(xfrm_usersa_id))) return std::nullopt;
    const auto* attribute = nlmsg_find_attr(const_cast<nlmsghdr*>(message), sizeof(xfrm_usersa_id), XFRMA_SA);
    if (!attribute || nla_len(attribute) < static_cast<int>(sizeof(xfrm_usersa_info))) return std::nullopt;
    xfrm_usersa_info info;
    std::memcpy(&info, nla_data(attribute), sizeof info);
    // As in a dump: an SA that libcharon wrote has its set's mark here alone. (An EXPIRE does not tell it.)
    const auto* set_mark = nlmsg_find_attr(const_cast<nlmsghdr*>(message), sizeof(xfrm_usersa_id), XFRMA_SET_MARK);
    if (info.seq == 0 && set_mark && nla_len(set_mark) == sizeof(std::uint32_t)) info.seq = nla_get_u32(set_mark);
    return event_of_sa(KernelEvent::Kind::sa_deleted, info, owner);
}

std::optional<KernelEvent> read_message(const nlmsghdr* message, const Ownership& owner) {
    KernelEvent event;
    switch (message->nlmsg_type) {
        case XFRM_MSG_DELSA:
            return read_deleted_sa(message, owner);
        case XFRM_MSG_EXPIRE: {
            const auto told = fixed_part<xfrm_user_expire>(message);
            if (!told) return std::nullopt;
            return event_of_sa(told->hard ? KernelEvent::Kind::hard_expired : KernelEvent::Kind::soft_expired,
                               told->state, owner);
        }
        case XFRM_MSG_FLUSHSA: {
            const auto told = fixed_part<xfrm_usersa_flush>(message);
            if (told && told->proto != 0 && told->proto != IPPROTO_ESP && told->proto != 255)
                return std::nullopt;  // IPSEC_PROTO_ANY
            event.kind = KernelEvent::Kind::sas_flushed;
            return event;
        }
        case XFRM_MSG_DELPOLICY: {
            const auto told = fixed_part<xfrm_userpolicy_id>(message);
            if (!told) return std::nullopt;
            return event_of_policy(KernelEvent::Kind::policy_deleted, told->sel, told->dir);
        }
        case XFRM_MSG_UPDPOLICY: {
            const auto told = fixed_part<xfrm_userpolicy_info>(message);
            if (!told) return std::nullopt;
            return event_of_policy(KernelEvent::Kind::policy_replaced, told->sel, told->dir);
        }
        case XFRM_MSG_FLUSHPOLICY:
            event.kind = KernelEvent::Kind::policies_flushed;
            return event;
        case XFRM_MSG_MAPPING:
            return read_mapping(message, owner);
        default:
            return std::nullopt;  // message types are an open set of the kernel's
    }
}

// Accepts the seven kinds that are read, drops all others before they reach the process. The type is in host order at
// offset 4.
bool attach_filter(int fd) {
    constexpr std::array<std::uint16_t, 7> kWanted{XFRM_MSG_DELSA,     XFRM_MSG_EXPIRE,      XFRM_MSG_FLUSHSA,
                                                   XFRM_MSG_DELPOLICY, XFRM_MSG_FLUSHPOLICY, XFRM_MSG_UPDPOLICY,
                                                   XFRM_MSG_MAPPING};
    std::array<sock_filter, kWanted.size() + 3> code{};
    std::size_t at = 0;
    code[at++] = BPF_STMT(BPF_LD | BPF_H | BPF_ABS, offsetof(nlmsghdr, nlmsg_type));
    for (std::size_t i = 0; i < kWanted.size(); ++i)  // equal: to the last instruction, which accepts
        code[at++] =
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htons(kWanted[i]), static_cast<std::uint8_t>(kWanted.size() - i), 0);
    code[at++] = BPF_STMT(BPF_RET | BPF_K, 0);
    code[at++] = BPF_STMT(BPF_RET | BPF_K, 0xffffffff);
    const sock_fprog program{static_cast<unsigned short>(at), code.data()};
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0;
}

}  // namespace

std::optional<KernelEvent> read_event(std::span<const std::uint8_t> datagram, const Ownership& owner) {
    if (datagram.size() < sizeof(nlmsghdr)) return std::nullopt;
    const auto* message = reinterpret_cast<const nlmsghdr*>(datagram.data());
    // The aligned length must fit, too: libnl walks attributes up to it.
    if (message->nlmsg_len < sizeof(nlmsghdr) || (std::uint64_t{message->nlmsg_len} + 3) / 4 * 4 > datagram.size())
        return std::nullopt;
    return read_message(message, owner);
}

struct Monitor::Impl : std::enable_shared_from_this<Monitor::Impl> {
    Impl(asio::any_io_executor e, Ownership o, Handler h) : executor(std::move(e)), owner(o), handle(std::move(h)) {}
    ~Impl() { close(); }

    Result<void> open(int receive_buffer);
    void close();
    void wait();
    void drain();

    asio::any_io_executor executor;
    Ownership owner;
    Handler handle;
    nl_sock* socket = nullptr;
    std::optional<asio::posix::stream_descriptor> descriptor;
    std::uint64_t datagrams = 0;
};

Result<void> Monitor::Impl::open(int receive_buffer) {
    socket = nl_socket_alloc();
    if (!socket) return failure(Reaction::broken, "no memory for the XFRM event socket", ENOMEM);
    nl_socket_disable_seq_check(socket);
    const auto failed = [this](const char* what, int code) {
        close();
        return failure(Reaction::broken, std::string("cannot ") + what + " the XFRM event socket: " + nl_geterror(code),
                       EIO);
    };
    if (const int code = nl_connect(socket, NETLINK_XFRM); code < 0) return failed("open", code);
    const int fd = nl_socket_get_fd(socket);
    if (!attach_filter(fd)) return failed("filter", -nl_syserr2nlerr(errno));  // before any group is joined
    const int octets = receive_buffer != 0 ? receive_buffer : kReceiveBuffer;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &octets, sizeof octets) < 0)
        static_cast<void>(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &octets, sizeof octets));
    // One receive per datagram into one buffer: a peek and a second, larger buffer would leave copies that nobody
    // wipes.
    static_cast<void>(nl_socket_set_msg_buf_size(socket, kDatagramLimit));
    nl_socket_disable_msg_peek(socket);
    if (const int code = nl_socket_set_nonblocking(socket); code < 0) return failed("prepare", code);
    if (const int code =
            nl_socket_add_memberships(socket, XFRMNLGRP_EXPIRE, XFRMNLGRP_SA, XFRMNLGRP_POLICY, XFRMNLGRP_MAPPING, 0);
        code < 0)
        return failed("join the groups of", code);
    descriptor.emplace(executor);
    asio::error_code error;
    descriptor->assign(fd, error);
    if (error) return failed("watch", -NLE_FAILURE);
    wait();
    return {};
}

void Monitor::Impl::close() {
    if (descriptor && descriptor->is_open()) {
        asio::error_code ignored;
        descriptor->cancel(ignored);
        descriptor->release();  // the descriptor belongs to libnl's socket
    }
    descriptor.reset();
    if (socket) nl_socket_free(socket);
    socket = nullptr;
}

void Monitor::Impl::wait() {
    descriptor->async_wait(asio::posix::stream_descriptor::wait_read,
                           [weak = weak_from_this()](const asio::error_code& error) {
                               const auto self = weak.lock();
                               if (!self || error || !self->socket) return;
                               self->drain();
                               if (self->socket) self->wait();
                           });
}

void Monitor::Impl::drain() {
    constexpr int kAtOnce = 256;  // then others have their turn
    for (int i = 0; i < kAtOnce && socket; ++i) {
        sockaddr_nl sender{};
        unsigned char* buffer = nullptr;
        const int size = nl_recv(socket, &sender, &buffer, nullptr);
        if (size == -NLE_AGAIN || size == 0) return;
        if (size < 0) {  // ENOBUFS is NLE_NOMEM here; a cut datagram counts as lost, too
            KernelEvent lost;
            lost.kind = KernelEvent::Kind::events_lost;
            handle(lost);
            continue;
        }
        ++datagrams;
        // nl_pid stands for port id and not process id; 0 is the kernel, whom alone we listen to.
        const auto event =
            sender.nl_pid == 0 ? read_event({buffer, static_cast<std::size_t>(size)}, owner) : std::nullopt;
        explicit_bzero(buffer, static_cast<std::size_t>(size));
        std::free(buffer);
        if (event) handle(*event);
    }
}

Monitor::Monitor(asio::any_io_executor executor, Ownership owner, Handler handle)
    : impl_(std::make_shared<Impl>(std::move(executor), owner, std::move(handle))) {}

Monitor::~Monitor() { impl_->close(); }

Result<void> Monitor::start(int receive_buffer) { return impl_->open(receive_buffer); }
std::uint64_t Monitor::datagrams() const { return impl_->datagrams; }

}  // namespace gmgate::xfrm
