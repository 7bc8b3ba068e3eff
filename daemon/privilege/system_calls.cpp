#include "daemon/privilege/system_calls.h"

#include <array>

#include <sys/socket.h>

namespace gmgate::daemon {
namespace {

// What is not here, on purpose: everything that starts a program (execve, execveat), another's memory (ptrace,
// process_vm_*), name spaces, mounts, modules, bpf, key rings, identities and capabilities (set*id, capset), prctl,
// packet sockets.

// SIP, the core, the control socket, metrics, HEP; AF_NETLINK is the address watch (without a capability it only
// listens).
constexpr std::array kSockets{
    SystemCall{"socket", 0, AF_INET},
    SystemCall{"socket", 0, AF_INET6},
    SystemCall{"socket", 0, AF_UNIX},
    SystemCall{"socket", 0, AF_NETLINK},
    SystemCall{"bind"},
    SystemCall{"listen"},
    SystemCall{"accept"},
    SystemCall{"accept4"},
    SystemCall{"connect"},
    SystemCall{"shutdown"},
    SystemCall{"getsockname"},
    SystemCall{"getpeername"},
    SystemCall{"setsockopt"},
    SystemCall{"getsockopt"},
    SystemCall{"sendmsg"},
    SystemCall{"recvmsg"},
    SystemCall{"sendmmsg"},
    SystemCall{"recvmmsg"},
    SystemCall{"sendto"},
    SystemCall{"recvfrom"},
};
// The loop (Asio: epoll, eventfd, timerfd, pipe and socketpair of signals), its descriptors (FIONBIO, O_NONBLOCK), and
// single descriptors waited for.
constexpr std::array kLoop{
    SystemCall{"epoll_create1"}, SystemCall{"epoll_wait"},     SystemCall{"epoll_pwait"},     SystemCall{"epoll_ctl"},
    SystemCall{"eventfd2"},      SystemCall{"timerfd_create"}, SystemCall{"timerfd_settime"}, SystemCall{"poll"},
    SystemCall{"ppoll"},         SystemCall{"pipe2"},          SystemCall{"socketpair"},      SystemCall{"read"},
    SystemCall{"write"},         SystemCall{"readv"},          SystemCall{"writev"},          SystemCall{"close"},
    SystemCall{"ioctl"},         SystemCall{"fcntl"},
};
// Threads of TLS and of the store; signals; the end. clone takes no new program along: there is no execve.
constexpr std::array kThreads{
    SystemCall{"clone3"},
    SystemCall{"clone"},
    SystemCall{"set_robust_list"},
    SystemCall{"rseq"},
    SystemCall{"futex"},
    SystemCall{"sched_yield"},
    SystemCall{"sched_getaffinity"},
    SystemCall{"gettid"},
    SystemCall{"getpid"},
    SystemCall{"getuid"},
    SystemCall{"geteuid"},
    SystemCall{"getgid"},
    SystemCall{"getegid"},
    SystemCall{"exit"},
    SystemCall{"exit_group"},
    SystemCall{"tgkill"},
    SystemCall{"rt_sigreturn"},
    SystemCall{"rt_sigprocmask"},
    SystemCall{"rt_sigaction"},
    SystemCall{"restart_syscall"},
};
// malloc, thread stacks, SQLite's and the ledger's shared pages (memfd: connections that outlive the process).
constexpr std::array kMemory{
    SystemCall{"brk"},     SystemCall{"mmap"},     SystemCall{"munmap"},       SystemCall{"mremap"},
    SystemCall{"madvise"}, SystemCall{"mprotect"}, SystemCall{"memfd_create"}, SystemCall{"ftruncate"},
};
// The store (SQLite with WAL, set aside when it cannot be read), certificates and configuration at a reload, /proc/net,
// resolv.conf, sockets in the file system with their mode and group.
constexpr std::array kFiles{
    SystemCall{"openat"},     SystemCall{"access"},    SystemCall{"faccessat2"}, SystemCall{"fstat"},
    SystemCall{"newfstatat"}, SystemCall{"lseek"},     SystemCall{"pread64"},    SystemCall{"pwrite64"},
    SystemCall{"fsync"},      SystemCall{"fdatasync"}, SystemCall{"unlink"},     SystemCall{"mkdir"},
    SystemCall{"chmod"},      SystemCall{"fchmod"},    SystemCall{"chown"},      SystemCall{"fchown"},
    SystemCall{"umask"},      SystemCall{"readlink"},  SystemCall{"getcwd"},     SystemCall{"getdents64"},
    SystemCall{"rename"},     SystemCall{"flock"},     SystemCall{"fstatfs"},
};
// Time without the vDSO, random numbers, and what libraries ask of the machine.
constexpr std::array kRest{
    SystemCall{"clock_gettime"},   SystemCall{"clock_getres"}, SystemCall{"gettimeofday"}, SystemCall{"time"},
    SystemCall{"clock_nanosleep"}, SystemCall{"getrandom"},    SystemCall{"uname"},        SystemCall{"sysinfo"},
    SystemCall{"prlimit64"},       SystemCall{"getrusage"},
};
constexpr std::array<std::span<const SystemCall>, 6> kAll{kSockets, kLoop, kThreads, kMemory, kFiles, kRest};

}  // namespace

std::span<const std::span<const SystemCall>> gmgated_system_calls() { return kAll; }

}  // namespace gmgate::daemon
