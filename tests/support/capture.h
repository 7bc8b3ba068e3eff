// Everything that crosses a link, without any filter: what an attacker on the access network would see.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "tests/support/netns.h"

namespace gmgate::test {

/// One frame as it was on the link (Ethernet), with what the tests ask about it.
struct Frame {
    std::vector<std::uint8_t> bytes;
    std::chrono::system_clock::time_point time;

    bool is_ipv6() const;
    /// IP protocol number; of an IPv6 fragment the protocol that it carries. 0: not IP.
    int protocol() const;
    std::string source() const;  ///< IP address; empty: not IP
    bool is_esp() const { return protocol() == 50; }
    bool is_icmp() const { return protocol() == 1 || protocol() == 58; }
    bool is_fragment() const;
    bool contains(std::string_view text) const;
};

/// Records an interface from construction on. A packet socket of the test's own, not tcpdump: a frame is in the
/// socket's queue before its receiver can react to it, so once a test has seen an effect, its frames are in frames().
class Capture {
public:
    Capture(const Namespace& network, const std::string& interface);
    Capture(const Capture&) = delete;
    Capture& operator=(const Capture&) = delete;
    ~Capture();

    /// What was captured until now. Throws when the kernel dropped frames: a capture with holes proves nothing.
    std::vector<Frame> frames();
    std::size_t count(const std::function<bool(const Frame&)>& wanted);
    /// Frames that carry `text` anywhere, as descriptions; empty when it never crossed the link.
    std::vector<std::string> find(std::string_view text);
    /// For tcpdump and tshark.
    void write_pcap(const std::string& path);

private:
    void receive_all();
    void run();

    int socket_ = -1, wake_ = -1;
    std::mutex mutex_;
    std::vector<Frame> frames_;
    std::size_t dropped_ = 0;
    std::atomic<bool> stop_{false};
    std::thread thread_;
};

/// "IPv6 UDP fragment, 1452 octets": for messages.
std::string describe(const Frame& frame);

}  // namespace gmgate::test
