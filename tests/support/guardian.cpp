#include "tests/support/guardian.h"

#include <array>
#include <stdexcept>

#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

namespace gmgate::test {

Guardian start_guardian(const std::string& program, const std::string& engine,
                        const xfrm::EngineConfiguration& configuration, int network) {
    std::array<int, 2> ends{};
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) throw std::runtime_error("socketpair");
    const pid_t child = fork();
    if (child == 0) {
        const bool is_there = network < 0 || setns(network, CLONE_NEWNET) == 0;
        if (is_there && dup2(ends[1], GM_GUARD_FD) >= 0 && close_range(GM_GUARD_FD + 1, ~0U, 0) == 0) {
            if (engine.empty()) execl(program.c_str(), program.c_str(), "--guardian", nullptr);
            else execl(program.c_str(), program.c_str(), "--guardian", "--engine", engine.c_str(), nullptr);
        }
        _exit(127);
    }
    close(ends[1]);
    for (const auto& frame : xfrm::configuration_frames(configuration))
        if (child < 0 || send(ends[0], frame.data(), frame.size(), MSG_NOSIGNAL) < 0)
            throw std::runtime_error(program + " cannot be started");
    return {child, ends[0]};
}

}  // namespace gmgate::test
