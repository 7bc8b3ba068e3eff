/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "events.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/xfrm.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netlink.h"

enum { RECEIVE_BUFFER = 4 * 1024 * 1024, DATAGRAM = 65536 };

static _Alignas(8) uint8_t datagram[DATAGRAM];

/* Accepts the six kinds that are read: NEWSA and UPDSA, which carry keys, never reach the process. DELSA does carry
 * them, too, so every buffer is wiped. The type is in host order at offset 4. */
static bool attach_filter(int fd) {
    static const uint16_t wanted[] = {XFRM_MSG_DELSA,     XFRM_MSG_EXPIRE,      XFRM_MSG_FLUSHSA,
                                      XFRM_MSG_DELPOLICY, XFRM_MSG_FLUSHPOLICY, XFRM_MSG_UPDPOLICY};
    enum { COUNT = sizeof wanted / sizeof *wanted };
    struct sock_filter code[COUNT + 3];
    unsigned short at = 0;
    code[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_H | BPF_ABS, offsetof(struct nlmsghdr, nlmsg_type));
    for (int i = 0; i < COUNT; ++i) /* equal: to the last instruction, which accepts */
        code[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htons(wanted[i]), (uint8_t)(COUNT - i), 0);
    code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, 0);
    code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, 0xffffffff);
    const struct sock_fprog program = {at, code};
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0;
}

int events_open(void) {
    const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_XFRM);
    if (fd < 0) return -1;
    const int octets = RECEIVE_BUFFER;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &octets, sizeof octets) < 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &octets, sizeof octets);
    const struct sockaddr_nl self = {.nl_family = AF_NETLINK,
                                     .nl_groups = XFRMGRP_EXPIRE | XFRMGRP_SA | XFRMGRP_POLICY};
    if (attach_filter(fd) && bind(fd, (const struct sockaddr*)&self, sizeof self) == 0)
        return fd; /* filtered before it joins */
    const int error = errno;
    (void)close(fd);
    errno = error;
    return -1;
}

static bool is_long_enough(const struct nlmsghdr* message, size_t payload) {
    return message->nlmsg_len >= NLMSG_HDRLEN + payload;
}

static bool event_of_sa(const struct nlmsghdr* message, enum gm_event_kind kind, uint32_t reqid, struct gm_event* out) {
    struct told_sa told;
    netlink_read_sa(message, &told);
    if (told.reqid != reqid || told.sa.spi == 0) return false;
    out->event = kind;
    address_to(told.sa.family, told.sa.destination, &out->destination);
    out->spi = told.sa.spi;
    out->mark = told.mark ? told.mark : marks_get(&out->destination, out->spi);
    if (kind != GM_SOFT_EXPIRED) marks_drop(&out->destination, out->spi);
    return true;
}

static bool event_of_policy(const struct xfrm_selector* sel, uint8_t direction, enum gm_event_kind kind,
                            struct gm_event* out) {
    const bool is_outbound = direction != XFRM_POLICY_IN;
    const int family = sel->family == AF_INET6 ? AF_INET6 : AF_INET;
    uint8_t octets[16] = {0};
    memcpy(octets, is_outbound ? &sel->saddr : &sel->daddr, address_size(family));
    out->event = kind;
    address_to(family, octets, &out->guard);
    out->guard_port = ntohs(is_outbound ? sel->sport : sel->dport);
    out->guard_is_outbound = is_outbound;
    return true;
}

static bool read_event(const struct nlmsghdr* message, uint32_t reqid, struct gm_event* out) {
    const void* payload = NLMSG_DATA(message);
    switch (message->nlmsg_type) {
        case XFRM_MSG_DELSA:
            return event_of_sa(message, GM_SA_DELETED, reqid, out);
        case XFRM_MSG_EXPIRE: {
            const struct xfrm_user_expire* told = payload;
            return is_long_enough(message, sizeof *told) &&
                   event_of_sa(message, told->hard ? GM_HARD_EXPIRED : GM_SOFT_EXPIRED, reqid, out);
        }
        case XFRM_MSG_FLUSHSA: {
            const struct xfrm_usersa_flush* told = payload;
            out->event = GM_SAS_FLUSHED;
            return is_long_enough(message, sizeof *told) &&
                   (told->proto == 0 || told->proto == IPPROTO_ESP || told->proto == 255); /* IPSEC_PROTO_ANY */
        }
        case XFRM_MSG_DELPOLICY: {
            const struct xfrm_userpolicy_id* told = payload;
            return is_long_enough(message, sizeof *told) &&
                   event_of_policy(&told->sel, told->dir, GM_POLICY_DELETED, out);
        }
        case XFRM_MSG_UPDPOLICY: {
            const struct xfrm_userpolicy_info* told = payload;
            return is_long_enough(message, sizeof *told) &&
                   event_of_policy(&told->sel, told->dir, GM_POLICY_REPLACED, out);
        }
        case XFRM_MSG_FLUSHPOLICY:
            out->event = GM_POLICIES_FLUSHED;
            return true;
        default:
            return false; /* message types are an open set of the kernel's */
    }
}

int events_next(int fd, uint32_t reqid, struct gm_event* out) {
    for (;;) {
        struct sockaddr_nl sender = {0};
        socklen_t sender_size = sizeof sender;
        memset(out, 0, sizeof *out);
        out->destination.family = out->guard.family = 4; /* an address also where none is told */
        const ssize_t size =
            recvfrom(fd, datagram, sizeof datagram, MSG_TRUNC, (struct sockaddr*)&sender, &sender_size);
        if (size < 0 && errno == EINTR) continue;
        if (size < 0 && errno == EAGAIN) return 0;
        if (size < 0 || (size_t)size > sizeof datagram) { /* ENOBUFS; a cut datagram counts as lost, too */
            out->event = GM_EVENTS_LOST;
            return 1;
        }
        const struct nlmsghdr* message = (const struct nlmsghdr*)datagram;
        /* The aligned length must fit, too: libmnl walks attributes up to it. nl_pid 0 is the kernel, whom alone we
         * listen to. */
        const bool is_whole = (size_t)size >= sizeof *message && message->nlmsg_len >= sizeof *message &&
                              ((uint64_t)message->nlmsg_len + 3) / 4 * 4 <= (size_t)size;
        const bool is_told = is_whole && sender.nl_pid == 0 && read_event(message, reqid, out);
        explicit_bzero(datagram, (size_t)size);
        if (is_told) return 1;
    }
}
