/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How a request ends: what gm_done says of it. */
#ifndef GMGATE_CHARON_VERDICT_H
#define GMGATE_CHARON_VERDICT_H

#include <stdbool.h>

#include "xfrm/engine/protocol.h"

struct verdict {
    enum gm_outcome outcome;
    int code;
    char text[GM_TEXT_LIMIT];
};

static inline bool is_ok(const struct verdict* verdict) { return verdict->outcome == GM_OK; }

/* The text is cut to its field. */
__attribute__((format(printf, 3, 4))) struct verdict verdict(enum gm_outcome outcome, int code, const char* format,
                                                             ...);
/* The kernel's or libcharon's "no" to `what`: GM_RETRY when it may pass, GM_BROKEN when nothing is known, else
 * GM_REFUSED. */
struct verdict refusal(const char* what, int code, const char* words);

#endif
