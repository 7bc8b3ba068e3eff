#include "tests/support/capture.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fstream>
#include <stdexcept>
#include <system_error>

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/support/fail.h"

namespace gmgate::test {

namespace {

constexpr std::size_t kEthernetHeader = 14, kLargestFrame = 70000;
constexpr int kIpv6FragmentHeader = 44, kQueueBytes = 64 << 20;

int ether_type(const std::vector<std::uint8_t>& bytes) {
    return bytes.size() < kEthernetHeader ? 0 : bytes[12] << 8 | bytes[13];
}

template <class Number>
void put(std::ofstream& file, Number value) {
    file.write(reinterpret_cast<const char*>(&value), sizeof value);
}

}  // namespace

bool Frame::is_ipv6() const { return ether_type(bytes) == ETHERTYPE_IPV6 && bytes.size() >= kEthernetHeader + 40; }

int Frame::protocol() const {
    if (is_ipv6()) {
        const int next = bytes[kEthernetHeader + 6];
        return next == kIpv6FragmentHeader && bytes.size() > kEthernetHeader + 40 ? bytes[kEthernetHeader + 40] : next;
    }
    return ether_type(bytes) == ETHERTYPE_IP && bytes.size() >= kEthernetHeader + 20 ? bytes[kEthernetHeader + 9] : 0;
}

std::string Frame::source() const {
    if (protocol() == 0 && !is_ipv6()) return {};
    std::array<char, INET6_ADDRSTRLEN> text{};
    const auto* address = bytes.data() + kEthernetHeader + (is_ipv6() ? 8 : 12);
    return inet_ntop(is_ipv6() ? AF_INET6 : AF_INET, address, text.data(), text.size()) != nullptr ? text.data() : "";
}

bool Frame::is_fragment() const {
    if (is_ipv6()) return bytes[kEthernetHeader + 6] == kIpv6FragmentHeader;
    if (protocol() == 0) return false;
    return ((bytes[kEthernetHeader + 6] << 8 | bytes[kEthernetHeader + 7]) & 0x3fff) !=
           0;  // offset or "more fragments"
}

bool Frame::contains(std::string_view text) const {
    return std::ranges::search(bytes, text, {}, {}, [](char c) { return static_cast<std::uint8_t>(c); }).begin() !=
           bytes.end();
}

std::string describe(const Frame& frame) {
    const char* protocol = "other";
    switch (frame.protocol()) {
        case 1:
            protocol = "ICMP";
            break;
        case 6:
            protocol = "TCP";
            break;
        case 17:
            protocol = "UDP";
            break;
        case 50:
            protocol = "ESP";
            break;
        case 58:
            protocol = "ICMPv6";
            break;
        default:
            break;
    }
    return std::string(frame.is_ipv6() ? "IPv6 " : "IPv4 ") + protocol + (frame.is_fragment() ? " fragment, " : ", ") +
           std::to_string(frame.bytes.size()) + " octets";
}

Capture::Capture(const Namespace& network, const std::string& interface) {
    network.enter([&] {
        socket_ = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (socket_ < 0) fail("packet socket");
        // A guest with one CPU may let a whole burst arrive before our thread runs.
        if (setsockopt(socket_, SOL_SOCKET, SO_RCVBUFFORCE, &kQueueBytes, sizeof kQueueBytes) != 0)
            fail("SO_RCVBUFFORCE");
        sockaddr_ll address{};
        address.sll_family = AF_PACKET;
        address.sll_protocol = htons(ETH_P_ALL);
        address.sll_ifindex = static_cast<int>(if_nametoindex(interface.c_str()));
        if (address.sll_ifindex == 0) fail("no interface " + interface);
        if (bind(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) fail("bind packet socket");
    });
    wake_ = eventfd(0, EFD_CLOEXEC);
    if (wake_ < 0) fail("eventfd");
    thread_ = std::thread([this] { run(); });
}

Capture::~Capture() {
    stop_ = true;
    const std::uint64_t one = 1;
    if (write(wake_, &one, sizeof one) == sizeof one) thread_.join();
    else thread_.detach();
    close(socket_);
    close(wake_);
}

void Capture::run() {
    while (!stop_) {
        std::array<pollfd, 2> fds{{{socket_, POLLIN, 0}, {wake_, POLLIN, 0}}};
        if (poll(fds.data(), fds.size(), -1) < 0 && errno != EINTR) return;
        const std::lock_guard lock(mutex_);
        receive_all();
    }
}

void Capture::receive_all() {
    static thread_local std::vector<std::uint8_t> buffer(kLargestFrame);
    for (;;) {
        const ssize_t got = recv(socket_, buffer.data(), buffer.size(), 0);
        if (got < 0) break;
        frames_.push_back({{buffer.begin(), buffer.begin() + got}, std::chrono::system_clock::now()});
    }
    tpacket_stats statistics{};
    socklen_t size = sizeof statistics;  // reading resets them
    if (getsockopt(socket_, SOL_PACKET, PACKET_STATISTICS, &statistics, &size) == 0) dropped_ += statistics.tp_drops;
}

std::vector<Frame> Capture::frames() {
    const std::lock_guard lock(mutex_);
    receive_all();
    if (dropped_ != 0) throw std::runtime_error("the capture lost " + std::to_string(dropped_) + " frames");
    return frames_;
}

std::size_t Capture::count(const std::function<bool(const Frame&)>& wanted) {
    return static_cast<std::size_t>(std::ranges::count_if(frames(), wanted));
}

std::vector<std::string> Capture::find(std::string_view text) {
    std::vector<std::string> found;
    for (const auto& frame : frames())
        if (frame.contains(text)) found.push_back(describe(frame));
    return found;
}

void Capture::write_pcap(const std::string& path) {
    std::ofstream file(path, std::ios::binary);
    // https://www.tcpdump.org/manpages/pcap-savefile.5.html
    put<std::uint32_t>(file, 0xa1b2c3d4);
    put<std::uint16_t>(file, 2);
    put<std::uint16_t>(file, 4);
    put<std::uint64_t>(file, 0);
    put<std::uint32_t>(file, kLargestFrame);
    put<std::uint32_t>(file, 1);  // Ethernet
    for (const auto& frame : frames()) {
        const auto since = std::chrono::duration_cast<std::chrono::microseconds>(frame.time.time_since_epoch()).count();
        put(file, static_cast<std::uint32_t>(since / 1000000));
        put(file, static_cast<std::uint32_t>(since % 1000000));
        put(file, static_cast<std::uint32_t>(frame.bytes.size()));
        put(file, static_cast<std::uint32_t>(frame.bytes.size()));
        file.write(reinterpret_cast<const char*>(frame.bytes.data()), static_cast<std::streamsize>(frame.bytes.size()));
    }
    if (!file) throw std::runtime_error("cannot write " + path);
}

}  // namespace gmgate::test
