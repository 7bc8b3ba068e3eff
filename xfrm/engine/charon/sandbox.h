/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMGATE_CHARON_SANDBOX_H
#define GMGATE_CHARON_SANDBOX_H

#include <stdbool.h>

/* Before anything else: no core dumps, not dumpable, deaf to SIGTERM, SIGINT and SIGHUP, which are gmgated's to act
 * upon. */
void sandbox_begin(void);
/* Once all sockets are open: from now on only what the loop needs (seccomp). False with errno. */
bool sandbox_close(void);

#endif
