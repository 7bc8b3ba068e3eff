/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sandbox.h"

#include <errno.h>
#include <seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>

/* Traced with strace over the engine suite; no socket(), no open(), no exec: every descriptor is open by now. */
static const int wanted[] = {
    SCMP_SYS(poll),
    SCMP_SYS(recvfrom),
    SCMP_SYS(recvmsg),
    SCMP_SYS(sendmsg), /* the loop and libmnl */
    SCMP_SYS(getpid),
    SCMP_SYS(pselect6),
    SCMP_SYS(sendto), /* libcharon */
    SCMP_SYS(brk),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(time),
    SCMP_SYS(getrandom),
    SCMP_SYS(write),
    SCMP_SYS(exit_group),
    /* Not seen there: malloc with more SAs than in a test, stderr's first line, and what glibc has instead on other
       versions. */
    SCMP_SYS(mmap),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(mprotect),
    SCMP_SYS(madvise),
    SCMP_SYS(futex),
    SCMP_SYS(fstat),
    SCMP_SYS(newfstatat),
    SCMP_SYS(writev),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(ppoll),
    SCMP_SYS(select),
    SCMP_SYS(close),
    SCMP_SYS(exit),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(restart_syscall),
};

void sandbox_begin(void) {
    const struct rlimit none = {0, 0};
    (void)setrlimit(RLIMIT_CORE, &none);
    (void)prctl(PR_SET_DUMPABLE, 0);
    (void)signal(SIGTERM, SIG_IGN);
    (void)signal(SIGINT, SIG_IGN);
    (void)signal(SIGHUP, SIG_IGN);
    (void)signal(SIGPIPE, SIG_IGN);
}

bool sandbox_close(void) {
    const scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
    int status = filter ? 0 : -ENOMEM;
    for (size_t i = 0; status == 0 && i < sizeof wanted / sizeof *wanted; ++i)
        status = seccomp_rule_add(filter, SCMP_ACT_ALLOW, wanted[i], 0);
    if (status == 0) status = seccomp_load(filter); /* sets no_new_privs, too */
    seccomp_release(filter);
    errno = -status;
    return status == 0;
}
