/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What libcharon has no call for, on libmnl: asking for SAs, and the guard policies. No SA is written here. */
#ifndef GMGATE_CHARON_NETLINK_H
#define GMGATE_CHARON_NETLINK_H

#include <stdbool.h>
#include <stdint.h>

#include "sa.h"

/* The socket belongs to the network namespace of the moment. All return 0 or an errno; `words` are then the kernel's,
 * as far as it has given any. ETIMEDOUT: no answer within five seconds. Buffers that an answer with keys was in are
 * wiped. */
int netlink_open(void);
void netlink_close(void);

/* ESRCH when there is none with this destination and SPI. */
int netlink_find(const struct sa* sa, struct told_sa* out, char words[GM_TEXT_LIMIT]);
/* Every ESP SA of the namespace, whoever's. EINTR: the kernel calls its list inconsistent, begin again. */
int netlink_dump(void (*each)(const struct told_sa* told, void* context), void* context, char words[GM_TEXT_LIMIT]);

/* A wildcard policy of an access address (xfrm::GuardPolicy). */
struct guard {
    int family;
    uint8_t gateway[16];
    uint16_t port;
    bool is_outbound;
};
struct told_policy {
    bool is_guard_shaped; /* selector, priority, ICMP flag and template are those that netlink_add_guard writes */
    uint32_t priority;
    uint32_t reqid; /* of the first template, 0 without one */
};
/* EEXIST when a policy with this selector is there. */
int netlink_add_guard(const struct guard* guard, uint32_t reqid, char words[GM_TEXT_LIMIT]);
/* ENOENT when there is none. */
int netlink_find_guard(const struct guard* guard, struct told_policy* out, char words[GM_TEXT_LIMIT]);
int netlink_delete_guard(const struct guard* guard, char words[GM_TEXT_LIMIT]);

/* Of a message's usersa_info and attributes: `seq`, where gmgate's own engine keeps the mark of the set, else
 * XFRMA_SET_MARK. */
struct nlmsghdr;
void netlink_read_sa(const struct nlmsghdr* message, struct told_sa* out);

/* Messages sent, and sendto and recvfrom calls. */
uint64_t netlink_requests(void);
uint64_t netlink_system_calls(void);

#endif
