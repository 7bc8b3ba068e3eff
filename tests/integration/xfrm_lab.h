// Two network namespaces joined by a veth pair, and sockets in them, for the kernel tests of xfrm/.
#pragma once

#include <array>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include "base/clock.h"
#include "tests/support/process.h"
#include "xfrm/netlink/kernel.h"

namespace gmgate::test {

/// Runs a task to its end on its own loop.
template <class T>
T finish(asio::io_context& io, Task<T> task) {
    std::optional<T> out;
    asio::co_spawn(io, std::move(task), [&out](std::exception_ptr, T value) { out = std::move(value); });
    io.restart();
    io.run();
    return std::move(*out);
}

/// Standard output of a shell command; the test fails when the command does.
std::string shell(const std::string& command);

class Fd {
public:
    explicit Fd(int fd = -1) : fd_(fd) {}
    Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Fd& operator=(Fd&&) = delete;
    ~Fd();
    int get() const { return fd_; }

private:
    int fd_;
};

/// Fresh namespaces "gateway" (192.0.2.1, 2001:db8:1::1) and "ue" (192.0.2.9, 2001:db8:1::9); gone with the object.
class Lab {
public:
    Lab();
    ~Lab();

    void enter_gateway() { enter(gateway_); }
    void enter_ue() { enter(ue_); }
    Address gateway_address(Family family) const;
    Address ue_address(Family family) const;

    asio::io_context& io() { return io_; }
    xfrm::NetlinkKernel& gateway() { return *gateway_kernel_; }
    xfrm::NetlinkKernel& ue() { return *ue_kernel_; }
    Clock& clock() { return clock_; }

private:
    static void enter(const Fd& where);

    Clock clock_;
    asio::io_context io_;
    Fd home_, gateway_, ue_;
    std::unique_ptr<xfrm::NetlinkKernel> gateway_kernel_, ue_kernel_;
};

/// A set between the lab's addresses: UE ports 5064 and 5066, gateway ports 6100 (pc) and 6101 (ps).
xfrm::SetParameters lab_set(const Lab& lab, Family family, AlgorithmPair pair);
/// The same agreement as the UE's kernel has to install it.
xfrm::SetParameters mirrored(const xfrm::SetParameters& p);
/// A request with keys derived from CK and IK of TS 35.208 set 1.
xfrm::SetRequest request_for(const xfrm::SetParameters& p, Mark mark,
                             std::chrono::seconds lifetime = std::chrono::seconds{600});

/// A bound socket in the namespace of the moment; SO_RCVMARK is on. Non-blocking.
Fd bound_socket(int type, const Endpoint& local);
bool send_to(const Fd& socket, const Endpoint& to, std::string_view text);
struct Received {
    std::string text;
    std::uint32_t mark = 0;
};
/// What comes within kPatience.
std::optional<Received> receive(const Fd& socket);
/// A counter of /proc/net/xfrm_stat of the namespace of the moment.
std::uint64_t xfrm_stat(std::string_view name);

}  // namespace gmgate::test
