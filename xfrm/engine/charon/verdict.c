/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "verdict.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct verdict verdict(enum gm_outcome outcome, int code, const char* format, ...) {
    struct verdict out = {.outcome = outcome, .code = code};
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(out.text, sizeof out.text, format, arguments);
    va_end(arguments);
    return out;
}

struct verdict refusal(const char* what, int code, const char* words) {
    enum gm_outcome outcome = GM_REFUSED;
    if (code == ENOMEM || code == ENOBUFS || code == EAGAIN) outcome = GM_RETRY;
    if (code == ETIMEDOUT || code == EBADMSG) outcome = GM_BROKEN;
    return verdict(outcome, code, "the kernel refused %s%s%s: %s", what, words[0] ? ": " : "", words, strerror(code));
}
