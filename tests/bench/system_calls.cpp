#include "tests/bench/system_calls.h"

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string_view>

#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

namespace gmgate::bench {
namespace {

/// A call that nobody else makes: what lies between the first and the second is counted.
constexpr long kMarker = SYS_getppid;

std::string name_of(long number) {
    switch (number) {
        case SYS_socket:
            return "socket";
        case SYS_bind:
            return "bind";
        case SYS_getsockname:
            return "getsockname";
        case SYS_setsockopt:
            return "setsockopt";
        case SYS_sendto:
            return "sendto";
        case SYS_sendmsg:
            return "sendmsg";
        case SYS_recvfrom:
            return "recvfrom";
        case SYS_recvmsg:
            return "recvmsg";
        case SYS_recvmmsg:
            return "recvmmsg";
        case SYS_sendmmsg:
            return "sendmmsg";
        case SYS_getrandom:
            return "getrandom";
        case SYS_fcntl:
            return "fcntl";
        case SYS_close:
            return "close";
        case SYS_epoll_wait:
            return "epoll_wait";
        case SYS_epoll_ctl:
            return "epoll_ctl";
        case SYS_timerfd_settime:
            return "timerfd_settime";
        case SYS_read:
            return "read";
        case SYS_write:
            return "write";
        case SYS_brk:
            return "brk";
        case SYS_mmap:
            return "mmap";
        case SYS_munmap:
            return "munmap";
        case SYS_futex:
            return "futex";
        case SYS_clock_gettime:
            return "clock_gettime";  // a system call only where there is no vDSO, as on User Mode Linux
        default:
            return "no. " + std::to_string(number);
    }
}

[[noreturn]] void child(const std::function<void()>& prepare, const std::function<void()>& work) {
    int status = 1;
    if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) == 0) {
        raise(SIGSTOP);
        try {
            prepare();
            syscall(kMarker);
            work();
            syscall(kMarker);
            status = 0;
        } catch (const std::exception& e) {
            std::fprintf(stderr, "while counting system calls: %s\n", e.what());
        }
    }
    _exit(status);
}

/// The number of the system call at which the child stopped.
long call_number(pid_t pid) {
#if defined(__x86_64__)
    return ptrace(PTRACE_PEEKUSER, pid, offsetof(user_regs_struct, orig_rax), nullptr);
#else
    struct __ptrace_syscall_info info {};
    ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof info, &info);
    return static_cast<long>(info.entry.nr);
#endif
}

}  // namespace

std::map<std::string, std::uint64_t> system_calls_of(const std::function<void()>& prepare,
                                                     const std::function<void()>& work) {
    std::fflush(nullptr);
    const pid_t pid = fork();
    if (pid < 0) throw std::runtime_error(std::string("fork: ") + std::strerror(errno));
    if (pid == 0) child(prepare, work);

    int status = 0;
    if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
        throw std::runtime_error("the child to be traced did not stop");
    ptrace(PTRACE_SETOPTIONS, pid, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);

    std::map<std::string, std::uint64_t> counts;
    int markers = 0;
    bool is_entry = true;
    int signal = 0;
    for (;;) {
        if (ptrace(PTRACE_SYSCALL, pid, nullptr, signal) != 0)
            throw std::runtime_error(std::string("ptrace: ") + std::strerror(errno));
        if (waitpid(pid, &status, 0) != pid) throw std::runtime_error(std::string("waitpid: ") + std::strerror(errno));
        if (WIFEXITED(status) || WIFSIGNALED(status)) break;
        signal = 0;
        if (WSTOPSIG(status) != (SIGTRAP | 0x80)) {
            signal = WSTOPSIG(status);
            continue;
        }
        if (is_entry) {
            const long number = call_number(pid);
            if (number == kMarker) ++markers;
            else if (markers == 1) ++counts[name_of(number)];
        }
        is_entry = !is_entry;
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || markers != 2)
        throw std::runtime_error("the traced child failed");
    return counts;
}

}  // namespace gmgate::bench
