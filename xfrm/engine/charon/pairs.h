/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table from negotiated algorithms (TS 33.203 Annex H) to libcharon's transforms and the kernel's names. */
#ifndef GMGATE_CHARON_PAIRS_H
#define GMGATE_CHARON_PAIRS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "xfrm/engine/protocol.h"

struct pair_row {
    struct gm_pair pair;
    const char* words;                                           /* "hmac-sha-1-96 with aes-cbc" */
    const char *auth, *crypt, *aead;                             /* as the kernel tells them, "" for an absent one */
    uint8_t integrity_size, confidentiality_size, combined_size; /* octets of the keys; an AEAD's include the salt */
    const char* modules;                                         /* what modprobe wants besides esp4 or esp6 */
};

/* NULL for a pair that is not valid (B-62). */
const struct pair_row* pair_find(struct gm_pair pair);
/* NULL for algorithms that are not of ours. */
const struct pair_row* pair_by_names(const char* auth, const char* crypt, const char* aead);

#endif
