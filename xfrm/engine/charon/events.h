/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What happens to SAs and policies without our asking: libcharon hears of expiry only, so this listens itself. */
#ifndef GMGATE_CHARON_EVENTS_H
#define GMGATE_CHARON_EVENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "xfrm/engine/protocol.h"

/* Returns the descriptor of the event socket, or -1 with errno. From then on no event is missed without GM_EVENTS_LOST.
 */
int events_open(void);
/* One event of SAs with this reqid, of any policy, or a flush. 1 when there is one, 0 when none is waiting; others' are
 * passed over. */
int events_next(int fd, uint32_t reqid, struct gm_event* out);

/* Whose set an SA of ours is, by destination and SPI: an EXPIRE does not tell XFRMA_SET_MARK, where this engine keeps
 * the mark. */
bool marks_put(const struct gm_address* destination, uint32_t spi, uint32_t mark); /* false: no memory */
uint32_t marks_get(const struct gm_address* destination, uint32_t spi);            /* 0 when unknown */
void marks_drop(const struct gm_address* destination, uint32_t spi);
void marks_clear(void);
size_t marks_count(void); /* SAs of ours that are known */

#endif
