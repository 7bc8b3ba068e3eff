#include "tests/support/own_network.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

namespace gmgate::test {
namespace {

bool is_inside = false;

[[noreturn]] void give_up(const char* what) {
    std::fprintf(
        stderr,
        "The tests want a network namespace of their own, but %s: %s\n"
        "Run them as root with CAP_SYS_ADMIN, or allow user namespaces (sysctl user.max_user_namespaces, user.max_net_namespaces,\n"
        "kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns; in a container its seccomp profile).\n",
        what, std::strerror(errno));
    std::_Exit(1);
}

void write_file(const char* path, const std::string& text) {
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text.data(), text.size()) != static_cast<ssize_t>(text.size())) give_up(path);
    close(fd);
}

// Same ids inside and outside: what a test makes in the file system belongs to whoever runs it.
void enter_user_namespace() {
    const auto user = std::to_string(geteuid()), group = std::to_string(getegid());
    if (unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) give_up("unshare(CLONE_NEWUSER | CLONE_NEWNET) was refused");
    write_file("/proc/self/uid_map", user + " " + user + " 1");
    write_file("/proc/self/setgroups", "deny");
    write_file("/proc/self/gid_map", group + " " + group + " 1");
}

void bring_loopback_up() {
    const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ifreq request{};
    std::memcpy(request.ifr_name, "lo", sizeof "lo");
    if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &request) != 0) give_up("its loopback does not answer");
    request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
    if (ioctl(fd, SIOCSIFFLAGS, &request) != 0) give_up("its loopback does not come up");
    close(fd);
}

}  // namespace

void enter_own_network() {
    if (unshare(CLONE_NEWNET) != 0) enter_user_namespace();
    bring_loopback_up();
    is_inside = true;
}

Port fresh_port() {
    constexpr std::uint16_t
        first = 10'000,
        end = 30'000;  // the kernel's own begin at 32,768 in a new namespace (net.ipv4.ip_local_port_range)
    static std::uint16_t next = first;
    if (!is_inside) std::abort();  // a test program without enter_own_network()
    if (next == end) next = first;
    return Port{next++};
}

}  // namespace gmgate::test
