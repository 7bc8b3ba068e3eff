#include "tests/support/netns.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <random>
#include <stdexcept>
#include <system_error>
#include <thread>

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include "tests/support/fail.h"
#include "tests/support/process.h"

namespace gmgate::test {

namespace {

/// Runs on a thread of its own, because a thread's namespace cannot be given back safely.
void on_fresh_thread(const std::function<void()>& work) {
    std::exception_ptr caught;
    std::thread thread([&] {
        try {
            work();
        } catch (...) {
            caught = std::current_exception();
        }
    });
    thread.join();
    if (caught) std::rethrow_exception(caught);
}

}  // namespace

Namespace::Namespace(std::string role) : role_(std::move(role)) {
    on_fresh_thread([this] {
        if (unshare(CLONE_NEWNET) != 0) fail("unshare(CLONE_NEWNET): network namespaces need root");
        fd_ = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
        if (fd_ < 0) fail("open /proc/thread-self/ns/net");
    });
    // A link-local address in its detection phase would hold up the first IPv6 packet for a second.
    set_sysctl("net/ipv6/conf/default/accept_dad", "0");
    ip_batch("link set lo up\n");
}

Namespace::~Namespace() {
    if (fd_ >= 0) close(fd_);
}

std::string Namespace::path() const { return "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(fd_); }

void Namespace::enter(const std::function<void()>& work) const {
    on_fresh_thread([&] {
        if (setns(fd_, CLONE_NEWNET) != 0) fail("setns " + role_);
        work();
    });
}

std::string Namespace::run(std::string_view command_line) const {
    return run_program({.command = {"/bin/sh", "-c", std::string(command_line)}, .name = role_, .network = this});
}

void Namespace::ip_batch(const std::string& lines) const {
    run_program({.command = {"ip", "-batch", "-"}, .name = "ip in " + role_, .network = this}, lines);
}

void Namespace::set_sysctl(const std::string& name, const std::string& value) const {
    enter([&] {
        std::ofstream file("/proc/sys/" + name);
        file << value << std::flush;
        if (!file) throw std::runtime_error("cannot write sysctl " + name);
    });
}

Network::Network() {
    ue.ip_batch(std::string("link add ") + kUeLink + " type veth peer name " + kAccessLink + " netns " + gw.path() +
                "\naddress add 10.1.0.2/16 dev access0\naddress add fd01::2/64 dev access0 nodad\n"
                "link set access0 up\nroute add default via 10.1.0.1\n");
    core.ip_batch("link add core0 type veth peer name core netns " + gw.path() +
                  "\naddress add 10.2.0.2/24 dev core0\naddress add fd02::2/64 dev core0 nodad\nlink set core0 up\n");
    gw.ip_batch(
        "address add 10.1.0.1/16 dev access\naddress add fd01::1/64 dev access nodad\nlink set access up\n"
        "address add 10.2.0.1/24 dev core\naddress add fd02::1/64 dev core nodad\nlink set core up\n");
    ue.ip_batch("route add default via fd01::1\n");
    // The kernel reports the carrier of new veth pairs a little later than the pairs, and gmgated would tell it as an
    // address that comes back.
    gw.run(
        "for i in $(seq 600); do [ $(ip link show type veth | grep -c 'state UP') = 2 ] && exit 0; sleep 0.05; done; ip link show; exit 1");
}

Network::~Network() {
    try {
        ue.ip_batch(std::string("link set ") + kUeLink + " down\n");
    } catch (const std::exception&) {
        // A test that took the link away has nothing in the queue either.
    }
}

std::string unique_word(std::string_view prefix) {
    static std::random_device source;
    char text[17];
    std::snprintf(text, sizeof text, "%08x%08x", source(), source());
    return std::string(prefix) + text;
}

}  // namespace gmgate::test
