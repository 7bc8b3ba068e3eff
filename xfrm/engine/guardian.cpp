#include "xfrm/engine/guardian.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <vector>

#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/confine.h"
#include "base/log.h"
#include "base/rights.h"
#include "xfrm/engine/frames.h"

extern char** environ;

namespace gmgate::xfrm {
namespace {

using namespace std::chrono_literals;
using SteadyClock = std::chrono::steady_clock;

constexpr auto kLongLife = 1s;  ///< a worker that lived for so long is started again at once
constexpr auto kFirstPause = 50ms, kLastPause = 1000ms;

// What no worker has any business with, whichever engine it is; its own list is narrower. A worker inherits this one.
constexpr std::array kForbidden{
    SystemCall{"ptrace"},
    SystemCall{"process_vm_readv"},
    SystemCall{"process_vm_writev"},
    SystemCall{"process_madvise"},
    SystemCall{"kcmp"},         // other processes' memory
    SystemCall{"pidfd_getfd"},  // and descriptors
    SystemCall{"init_module"},
    SystemCall{"finit_module"},
    SystemCall{"delete_module"},
    SystemCall{"kexec_load"},
    SystemCall{"kexec_file_load"},
    SystemCall{"reboot"},  // the kernel itself
    SystemCall{"bpf"},
    SystemCall{"perf_event_open"},
    SystemCall{"userfaultfd"},
    SystemCall{"io_uring_setup"},  // its wide doors
    SystemCall{"mount"},
    SystemCall{"umount2"},
    SystemCall{"pivot_root"},
    SystemCall{"chroot"},
    SystemCall{"open_tree"},
    SystemCall{"move_mount"},
    SystemCall{"fsopen"},  // file systems
    SystemCall{"setns"},
    SystemCall{"unshare"},  // name spaces: it stays where it was started
    SystemCall{"add_key"},
    SystemCall{"request_key"},
    SystemCall{"keyctl"},  // key rings
    SystemCall{"settimeofday"},
    SystemCall{"clock_settime"},
    SystemCall{"adjtimex"},
    SystemCall{"sethostname"},
    SystemCall{"swapon"},
    SystemCall{"acct"},
};

struct Guardian {
    std::vector<Frame> configuration;
    int program = -1;   ///< opened once: a package may put another release in its place
    int children = -1;  ///< signalfd
    pid_t worker = -1;
    std::uint32_t starts = 0, refused = 0;
    SteadyClock::time_point started{};
    std::chrono::milliseconds pause = 0ms;
};

// False when gmgated is gone.
bool tell(const Guardian& g, gm_kind kind, int status, int descriptor) {
    const gm_worker told{
        .pid = static_cast<std::uint32_t>(g.worker), .starts = g.starts, .status = status, .refused = g.refused};
    const auto frame = FrameWriter(kind).add(told).finish();
    return send_with_descriptor(GM_GUARD_FD, {reinterpret_cast<const char*>(frame.data()), frame.size()}, descriptor) ==
           0;
}

// The configuration waits in the socket before anybody else has an end of it: nobody can be first but us.
bool start_worker(Guardian& g) {
    std::array<int, 2> ends{};
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) {
        log::error("xfrmd-worker-not-started", {{"why", std::strerror(errno)}});
        return false;
    }
    for (const auto& frame : g.configuration) {
        if (send(ends[0], frame.data(), frame.size(), MSG_NOSIGNAL | MSG_DONTWAIT) >= 0) continue;
        log::error("xfrmd-worker-not-started",
                   {{"why", std::string("the configuration does not fit the socket: ") + std::strerror(errno)}});
        close(ends[0]);
        close(ends[1]);
        return false;
    }
    g.started = SteadyClock::now();
    const pid_t child = fork();
    if (child == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, nullptr);
        char name[] = "gmgate-xfrmd", word[] = "--worker";
        std::array<char*, 3> arguments{name, word, nullptr};
        char empty[] = "";
        // dup2 clears close-on-exec: the worker has this one descriptor, and 0 to 2.
        if (dup2(ends[1], GM_WORK_FD) >= 0) execveat(g.program, empty, arguments.data(), environ, AT_EMPTY_PATH);
        _exit(127);
    }
    close(ends[1]);
    if (child < 0) {
        log::error("xfrmd-worker-not-started", {{"why", std::strerror(errno)}});
        close(ends[0]);
        return false;
    }
    g.worker = child;
    ++g.starts;
    const bool is_told = tell(g, GM_WORKER_UP, 0, ends[0]);
    close(ends[0]);
    if (!is_told) exit(0);
    return true;
}

// gmgated's configuration, once. False when gmgated is gone or says something else.
bool take_configuration(Guardian& g) {
    EngineConfiguration configuration;
    for (;;) {
        Frame frame(GM_FRAME_LIMIT);
        const auto size = recv(GM_GUARD_FD, frame.data(), frame.size(), MSG_TRUNC);
        if (size < 0 && errno == EINTR) continue;
        if (size <= 0 || static_cast<std::size_t>(size) > frame.size()) return false;
        frame.resize(static_cast<std::size_t>(size));
        const auto is_last = add_configuration(configuration, frame, g.configuration.empty());
        if (!is_last) {
            log::error("xfrmd-configuration-refused", {{"why", is_last.error().text}});
            return false;
        }
        g.configuration.push_back(std::move(frame));
        if (*is_last) return true;
    }
}

// Whatever comes after the configuration is not wanted. False when gmgated's end is closed.
bool refuse_frame(Guardian& g) {
    std::array<std::uint8_t, 64> frame{};
    const auto size = recv(GM_GUARD_FD, frame.data(), frame.size(), MSG_DONTWAIT);
    if (size < 0) return errno == EAGAIN || errno == EINTR;
    if (size == 0) return false;
    if (++g.refused == 1)
        log::warning("xfrmd-request-refused", {{"request", "to the guardian"},
                                               {"why", "the configuration is given once; gmgated is not what it was"}});
    return true;
}

// False when gmgated is gone.
bool bury(Guardian& g) {
    signalfd_siginfo ignored{};
    while (read(g.children, &ignored, sizeof ignored) > 0) {}
    int status = 0;
    if (g.worker < 0 || waitpid(g.worker, &status, WNOHANG) != g.worker) return true;
    const bool is_told = tell(g, GM_WORKER_DOWN, status, -1);
    g.worker = -1;
    const bool had_long_life = SteadyClock::now() - g.started > kLongLife;
    g.pause = had_long_life
                  ? 0ms
                  : std::min<std::chrono::milliseconds>(g.pause == 0ms ? kFirstPause : g.pause * 2, kLastPause);
    return is_told;
}

int keep_running(Guardian& g) {
    for (;;) {
        const auto since = std::chrono::duration_cast<std::chrono::milliseconds>(SteadyClock::now() - g.started);
        if (g.worker < 0 && since >= g.pause && !start_worker(g)) g.pause = kLastPause;
        std::array<pollfd, 2> events{pollfd{.fd = GM_GUARD_FD, .events = POLLIN, .revents = 0},
                                     pollfd{.fd = g.children, .events = POLLIN, .revents = 0}};
        const int patience =
            g.worker >= 0 ? -1
                          : static_cast<int>(std::max<std::chrono::milliseconds::rep>(1, (g.pause - since).count()));
        if (poll(events.data(), events.size(), patience) < 0 && errno != EINTR) return 1;
        if (events[0].revents != 0 && !refuse_frame(g)) return 0;  // the worker hears the same from its own socket
        if (events[1].revents != 0 && !bury(g)) return 0;
    }
}

Result<void> give_up(const std::string& program, Guardian& g) {
    // Before the capabilities go: a program in a folder that only root may enter is found now.
    g.program = open(program.empty() ? "/proc/self/exe" : program.c_str(), O_PATH | O_CLOEXEC);
    if (g.program < 0) return system_failure(Reaction::refused, "the worker's program " + program, errno);
    constexpr std::array keep{CAP_NET_ADMIN};
    if (auto ok = keep_capabilities({.capabilities = keep, .is_effective = false, .is_inherited = true}); !ok)
        return ok;
    if (auto ok = no_new_privileges(); !ok) return ok;
    return forbid_system_calls(kForbidden);
}

}  // namespace

int guard(const std::string& program) {
    // Ends with gmgated, and not before it: systemd and a terminal send these to all processes.
    for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGPIPE}) std::signal(signal, SIG_IGN);
    hide_memory();
    Guardian g;
    sigset_t chld;
    sigemptyset(&chld);
    sigaddset(&chld, SIGCHLD);
    sigprocmask(SIG_BLOCK, &chld, nullptr);
    g.children = signalfd(-1, &chld, SFD_NONBLOCK | SFD_CLOEXEC);
    if (g.children < 0 || fcntl(GM_GUARD_FD, F_SETFD, FD_CLOEXEC) != 0) {
        log::error("xfrmd-not-started", {{"why", std::strerror(errno)}});
        return 1;
    }
    if (const auto ok = give_up(program, g); !ok) {
        log::error("xfrmd-not-started", {{"why", ok.error().text}});
        return 1;
    }
    if (!take_configuration(g)) return 1;
    return keep_running(g);
}

}  // namespace gmgate::xfrm
