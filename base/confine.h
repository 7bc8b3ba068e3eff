// What a process gives up before it reads a byte that somebody else sent: capabilities, new privileges, system calls,
// its own memory image.
#pragma once

#include <span>

#include "base/error.h"

namespace gmgate {

/// Keeps these capabilities (linux/capability.h) as permitted and gives up all others, for good: effective, permitted,
/// inheritable, ambient, and the bounding set where CAP_SETPCAP allows it. `is_effective`: usable by this process
/// itself. `is_inherited`: programs that it starts have them, whoever the user is. Reaction::refused when one is not
/// there to be kept.
struct Keep {
    std::span<const int> capabilities{};
    bool is_effective = true;
    bool is_inherited = false;
};
Result<void> keep_capabilities(const Keep& keep);

/// No program that it starts gains anything (PR_SET_NO_NEW_PRIVS).
Result<void> no_new_privileges();

/// No core dump, and nobody of the same user looks into the memory or attaches (PR_SET_DUMPABLE 0). Not in sanitizer
/// builds: the leak check attaches to its own process.
void hide_memory();

/// What happens to a system call that is not on the list. Both are seen in the kernel's log (audit, type=1326).
enum class Otherwise {
    refuse,  ///< EPERM: a rare path of a library fails and the process lives
    kill,    ///< SIGSYS, the whole process: for one that is started again at once
};
/// One system call, by its name; with `argument` ≥ 0 only when that argument (from 0) is `value`.
struct SystemCall {
    const char* name;
    int argument = -1;
    unsigned long value = 0;
};
/// From now on only these system calls (seccomp). Needs no_new_privileges() or CAP_SYS_ADMIN. An unknown name is an
/// Error: a list is reviewed against the library that is there. Does nothing in sanitizer builds, whose run-time
/// library needs more than any list of ours.
Result<void> allow_system_calls(std::span<const std::span<const SystemCall>> groups, Otherwise otherwise);
/// The opposite: everything but these, which are refused with EPERM and logged. For a process that starts others, whose
/// lists are narrower.
Result<void> forbid_system_calls(std::span<const SystemCall> calls);

/// True when this build carries a sanitizer.
bool is_sanitized();

}  // namespace gmgate
