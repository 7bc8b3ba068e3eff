/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "log.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "xfrm/engine/protocol.h"

enum { REFUSALS_PER_SECOND = 5 };

/* journald takes the number for the priority. */
static const char* prefix(const char* level, const char* priority) {
    return getenv("JOURNAL_STREAM") ? priority : level;
}

void log_refusal(uint16_t kind, const char* why) {
    static time_t second;
    static int this_second;
    const time_t now = time(NULL);
    if (now != second) {
        second = now;
        this_second = 0;
    }
    if (++this_second > REFUSALS_PER_SECOND) return;
    (void)fprintf(stderr, "%sxfrmd-request-refused request=%s why=\"%s\"\n", prefix("warning ", "<4>"),
                  gm_kind_name(kind), why);
}

_Noreturn void fail(const char* id, const char* what, const char* why) {
    (void)fprintf(stderr, "%s%s why=\"%s: %s\"\n", prefix("error ", "<3>"), id, what, why);
    exit(EXIT_FAILURE);
}
