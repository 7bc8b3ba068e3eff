/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What this engine does for gmgated and what it refuses. gmgated parses bytes from a radio network and is not trusted
 * here. Pure. */
#ifndef GMGATE_CHARON_RULES_H
#define GMGATE_CHARON_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "verdict.h"

/* The next GM_CONFIGURE; `is_last` tells whether it was the last one. NULL, or why it is none. */
const char* rules_configure(const uint8_t* frame, size_t size, bool is_first, bool* is_last);
const struct gm_configuration* rules_configuration(void);

/* GM_REFUSED with EBADMSG for what breaks the protocol, with EPERM for what the configuration does not allow. */
struct verdict rules_check_install(const struct gm_install* install);
struct verdict rules_check_set(const struct gm_set* set);
struct verdict rules_check_guards(const struct gm_address* gateway, const uint16_t* ports, uint32_t count);
struct verdict malformed(const char* why);

#endif
