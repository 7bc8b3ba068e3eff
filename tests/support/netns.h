// Network namespaces for tests: the test network lives in its own namespaces and vanishes with the process, however it
// ends.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace gmgate::test {

/// An anonymous network namespace, held by a descriptor. It has no name under /run/netns: nothing can be left behind,
/// not even by a killed test, and two tests never meet.
class Namespace {
public:
    /// `role` is only used in messages. The loopback interface is up.
    explicit Namespace(std::string role);
    Namespace(const Namespace&) = delete;
    Namespace& operator=(const Namespace&) = delete;
    ~Namespace();

    const std::string& role() const { return role_; }
    int fd() const { return fd_; }
    /// A path that other processes can open as long as this one lives ("ip link … netns PATH").
    std::string path() const;

    /// Runs `work` on a thread inside the namespace and waits for it; sockets and files that it opens stay there.
    /// Exceptions come back to the caller.
    void enter(const std::function<void()>& work) const;
    /// Runs a program inside and returns its standard output; throws when it fails.
    std::string run(std::string_view command_line) const;
    /// The lines go to one "ip -batch" inside the namespace; throws when one of them fails.
    void ip_batch(const std::string& lines) const;
    /// Writes a sysctl of this namespace: set_sysctl("net/ipv4/ip_forward", "1").
    void set_sysctl(const std::string& name, const std::string& value) const;

private:
    std::string role_;
    int fd_ = -1;
};

/// ue ── access link ── gw ── core link ── core, IPv4 and IPv6 on both links, duplicate address detection off.
class Network {
public:
    Network();
    /// Takes the access link down first: a kernel 6.1 that still has ESP of a vanished link in its queue panics
    /// (net/xfrm/xfrm_input.c: every packet in transport mode waits for a worker, xfrm_trans_reinject(), and its device
    /// is not held meanwhile).
    ~Network();

    Namespace ue{"ue"};
    Namespace gw{"gw"};
    Namespace core{"core"};

    static constexpr const char* kUeLink = "access0";     ///< in ue
    static constexpr const char* kAccessLink = "access";  ///< in gw
    static constexpr const char* kUe4 = "10.1.0.2";
    static constexpr const char* kUe6 = "fd01::2";
    static constexpr const char* kAccess4 = "10.1.0.1";
    static constexpr const char* kAccess6 = "fd01::1";
    static constexpr const char* kGwCore4 = "10.2.0.1";
    static constexpr const char* kCore4 = "10.2.0.2";
    static constexpr const char* kGwCore6 = "fd02::1";
    static constexpr const char* kCore6 = "fd02::2";
};

/// A random word that will not occur by chance, to be searched for in captures and logs.
std::string unique_word(std::string_view prefix);

}  // namespace gmgate::test
