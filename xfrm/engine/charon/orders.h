/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What gmgated asks for, done: requests that the rules allow, each whole or rolled back. */
#ifndef GMGATE_CHARON_ORDERS_H
#define GMGATE_CHARON_ORDERS_H

#include "sa.h"
#include "verdict.h"

/* All four SAs or none. */
struct verdict order_install(const struct gm_install* install);
/* A new hard limit counted from now on all four, or the earlier limits on all. */
struct verdict order_extend(const struct gm_extend* extend);
struct verdict order_remove_set(const struct gm_set* set);
struct verdict order_remove_sas(const struct gm_sa_id* ids, uint32_t count);
/* `count` (at most 4) of those that exist and are ours. */
struct verdict order_report(const struct gm_set* set, struct gm_report out[4], uint32_t* count);
struct verdict order_dump(void (*each)(const struct gm_report* report), void (*again)(void));
struct verdict order_install_guards(const struct gm_address* gateway, const uint16_t* ports, uint32_t count);
/* Tells each guard of one port that stands as ours. */
struct verdict order_report_guard(const struct gm_address* gateway, uint16_t port,
                                  void (*tell)(const struct gm_guard* guard));
/* One pair in one family (4 or 6): by adding and deleting a dummy SA, which loads the modules. */
struct verdict order_probe(struct gm_pair pair, uint32_t family, struct gm_finding* out);

/* What SAs of ours are there, so that their events can be told whose they are: at the start, and when events cannot
 * tell what is gone. */
struct verdict order_look_around(void);

struct order_counters {
    uint64_t sets_installed, sets_refused, sets_removed, rollbacks;
};
const struct order_counters* order_counters(void);

#endif
