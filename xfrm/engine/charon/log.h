/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Lines on stderr as gmgated and gmgate-xfrmd write them: docs/log.md. */
#ifndef GMGATE_CHARON_LOG_H
#define GMGATE_CHARON_LOG_H

#include <stdint.h>

/* xfrmd-request-refused, a few times a second at most. `kind` is a gm_kind, or whatever the other end says. */
void log_refusal(uint16_t kind, const char* why);
/* An error, then the end with status 1. */
_Noreturn void fail(const char* id, const char* what, const char* why);

#endif
