#include "xfrm/engine/system_calls.h"

#include <array>

#include <sys/socket.h>

namespace gmgate::xfrm {
namespace {

// A trace of nine workers (`strace -f` around suite registration, User Mode Linux 6.1) showed sendmsg recvmsg sendmmsg
// recvmmsg socket bind getsockname setsockopt, epoll_wait epoll_ctl poll close ioctl futex, brk munmap, clock_gettime
// getpid getrandom exit_group. The others were put to them by hand: what the same code asks for on another libc, after
// an error, when memory grows, or to write its log.

// The two sockets that it has, and the netlink sockets that it may open anew after lost answers. No other family.
constexpr std::array kSockets{
    SystemCall{"sendmsg"},
    SystemCall{"recvmsg"},
    SystemCall{"sendmmsg"},
    SystemCall{"recvmmsg"},
    SystemCall{"sendto"},
    SystemCall{"recvfrom"},
    SystemCall{"socket", 0, AF_NETLINK},
    SystemCall{"bind"},
    SystemCall{"getsockname"},
    SystemCall{"setsockopt"},
    SystemCall{"getsockopt"},
    SystemCall{"shutdown"},
};

// The loop (Asio: epoll, timerfd, eventfd) and waiting in a long list. ioctl is FIONBIO, fcntl O_NONBLOCK.
constexpr std::array kLoop{
    SystemCall{"epoll_wait"}, SystemCall{"epoll_pwait"},     SystemCall{"epoll_ctl"}, SystemCall{"poll"},
    SystemCall{"ppoll"},      SystemCall{"timerfd_settime"}, SystemCall{"read"},      SystemCall{"write"},
    SystemCall{"close"},      SystemCall{"ioctl"},           SystemCall{"fcntl"},     SystemCall{"futex"},
};

// Memory. No mprotect to executable pages is asked for, but libc's malloc asks for mprotect of its own heap.
constexpr std::array kMemory{
    SystemCall{"brk"},    SystemCall{"mmap"},    SystemCall{"munmap"},
    SystemCall{"mremap"}, SystemCall{"madvise"}, SystemCall{"mprotect"},
};

// Time (without vDSO), identity, random numbers of the probe, and the end. fstat and newfstatat: stderr's kind, asked
// by libc once.
constexpr std::array kRest{
    SystemCall{"clock_gettime"},
    SystemCall{"gettimeofday"},
    SystemCall{"time"},  // libcrypto's random numbers ask when they were seeded
    SystemCall{"clock_nanosleep"},
    SystemCall{"getpid"},
    SystemCall{"gettid"},
    SystemCall{"getrandom"},
    SystemCall{"rt_sigreturn"},
    SystemCall{"rt_sigprocmask"},
    SystemCall{"rt_sigaction"},
    SystemCall{"restart_syscall"},
    SystemCall{"fstat"},
    SystemCall{"newfstatat"},
    SystemCall{"exit"},
    SystemCall{"exit_group"},
    SystemCall{"tgkill"},
};

constexpr std::array<std::span<const SystemCall>, 4> kAll{kSockets, kLoop, kMemory, kRest};

}  // namespace

std::span<const std::span<const SystemCall>> worker_system_calls() { return kAll; }

}  // namespace gmgate::xfrm
