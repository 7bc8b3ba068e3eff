#include "daemon/system_calls.h"

#include <array>

#include <sys/socket.h>

namespace gmgate::daemon {
namespace {

constexpr std::array kSockets{
    SystemCall{"socket", 0, AF_INET}, SystemCall{"socket", 0, AF_INET6}, SystemCall{"socket", 0, AF_UNIX}, SystemCall{"socket", 0, AF_NETLINK},
    SystemCall{"socketpair"}, SystemCall{"bind"}, SystemCall{"listen"}, SystemCall{"accept"}, SystemCall{"accept4"}, SystemCall{"connect"}, SystemCall{"shutdown"},
    SystemCall{"getsockname"}, SystemCall{"getpeername"}, SystemCall{"setsockopt"}, SystemCall{"getsockopt"},
    SystemCall{"sendmsg"}, SystemCall{"recvmsg"}, SystemCall{"sendmmsg"}, SystemCall{"recvmmsg"}, SystemCall{"sendto"}, SystemCall{"recvfrom"},
};
constexpr std::array kLoop{
    SystemCall{"epoll_create1"}, SystemCall{"epoll_wait"}, SystemCall{"epoll_pwait"}, SystemCall{"epoll_ctl"}, SystemCall{"eventfd2"}, SystemCall{"timerfd_create"},
    SystemCall{"timerfd_settime"}, SystemCall{"poll"}, SystemCall{"ppoll"}, SystemCall{"select"}, SystemCall{"pselect6"}, SystemCall{"pipe2"}, SystemCall{"pipe"},
    SystemCall{"read"}, SystemCall{"write"}, SystemCall{"readv"}, SystemCall{"writev"}, SystemCall{"close"}, SystemCall{"ioctl"}, SystemCall{"fcntl"},
};
constexpr std::array kThreads{
    SystemCall{"clone3"}, SystemCall{"clone"}, SystemCall{"set_robust_list"}, SystemCall{"rseq"}, SystemCall{"futex"}, SystemCall{"sched_yield"},
    SystemCall{"sched_getaffinity"}, SystemCall{"gettid"}, SystemCall{"getpid"}, SystemCall{"getuid"}, SystemCall{"geteuid"}, SystemCall{"getgid"}, SystemCall{"getegid"},
    SystemCall{"exit"}, SystemCall{"exit_group"}, SystemCall{"tgkill"}, SystemCall{"prctl"},
    SystemCall{"rt_sigreturn"}, SystemCall{"rt_sigprocmask"}, SystemCall{"rt_sigaction"}, SystemCall{"restart_syscall"}, SystemCall{"sigaltstack"},
};
constexpr std::array kMemory{
    SystemCall{"brk"}, SystemCall{"mmap"}, SystemCall{"munmap"}, SystemCall{"mremap"}, SystemCall{"madvise"}, SystemCall{"mprotect"}, SystemCall{"memfd_create"},
};
constexpr std::array kFiles{
    SystemCall{"openat"}, SystemCall{"open"}, SystemCall{"access"}, SystemCall{"faccessat"}, SystemCall{"faccessat2"}, SystemCall{"stat"}, SystemCall{"fstat"}, SystemCall{"lstat"},
    SystemCall{"newfstatat"}, SystemCall{"statx"}, SystemCall{"lseek"}, SystemCall{"pread64"}, SystemCall{"pwrite64"}, SystemCall{"fsync"}, SystemCall{"fdatasync"},
    SystemCall{"ftruncate"}, SystemCall{"unlink"}, SystemCall{"unlinkat"}, SystemCall{"mkdir"}, SystemCall{"chmod"}, SystemCall{"fchmod"}, SystemCall{"fchmodat"},
    SystemCall{"chown"}, SystemCall{"fchown"}, SystemCall{"lchown"}, SystemCall{"fchownat"}, SystemCall{"umask"}, SystemCall{"readlink"}, SystemCall{"getcwd"}, SystemCall{"getdents64"},
    SystemCall{"rename"}, SystemCall{"flock"}, SystemCall{"utimensat"}, SystemCall{"statfs"}, SystemCall{"fstatfs"},
};
constexpr std::array kRest{
    SystemCall{"clock_gettime"}, SystemCall{"clock_getres"}, SystemCall{"gettimeofday"}, SystemCall{"time"}, SystemCall{"clock_nanosleep"}, SystemCall{"nanosleep"}, SystemCall{"getrandom"},
    SystemCall{"uname"}, SystemCall{"sysinfo"}, SystemCall{"getrlimit"}, SystemCall{"prlimit64"}, SystemCall{"getrusage"},
};
constexpr std::array<std::span<const SystemCall>, 6> kAll{kSockets, kLoop, kThreads, kMemory, kFiles, kRest};

}  // namespace

std::span<const std::span<const SystemCall>> gmgated_system_calls() { return kAll; }

}  // namespace gmgate::daemon
