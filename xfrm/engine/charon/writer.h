/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SAs written by strongSwan's libcharon: the only file that sees its headers is writer.c. */
#ifndef GMGATE_CHARON_WRITER_H
#define GMGATE_CHARON_WRITER_H

#include <stdbool.h>
#include <stdint.h>

#include "sa.h"

/* Everything here is called by one thread. libcharon starts none of its own. */

/* libcharon with the IPsec half of its kernel-netlink plugin, nothing configured from strongswan.conf; the netlink
 * socket belongs to the network namespace of the moment. False, and why in words. */
bool writer_open(char words[GM_TEXT_LIMIT]);
void writer_close(void);

/* Keys as the pair wants them (pairs.h); the caller wipes its own copy. */
struct writer_keys {
    const uint8_t *integrity, *confidentiality, *combined;
};

/* All return 0 or an errno, and then libcharon's words: EEXIST, ESRCH, ETIMEDOUT (unknown whether it was done), or the
 * kernel's. */

/* A new SA. `mark` with `mark_mask` is what an inbound SA sets on packets; an outbound SA gets the mark with mask 0,
 * which the kernel keeps and tells but never applies: libcharon cannot set usersa_info.seq, where gmgate's own engine
 * keeps it. */
int writer_add(const struct sa* sa, struct gm_pair pair, const struct writer_keys* keys, uint32_t reqid, uint32_t mark,
               uint32_t mark_mask, uint32_t lifetime, char words[GM_TEXT_LIMIT]);
/* A new hard limit for an existing SA, in seconds since it was added; keys, selector, mark and replay window stay.
 * ESRCH when there is none. */
int writer_limit(const struct sa* sa, struct gm_pair pair, uint32_t reqid, uint64_t hard_limit,
                 char words[GM_TEXT_LIMIT]);
int writer_delete(const struct sa* sa, char words[GM_TEXT_LIMIT]);

/* Requests sent to the kernel so far. */
uint64_t writer_requests(void);

#endif
