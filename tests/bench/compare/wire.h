// What the programs of the comparison (phones, core, floor) share: addresses of either family, UDP sockets that know
// the address at which a datagram came, and the little of SIP that they read. Nothing of gmgate is in here: the
// programs stand beside each gateway alike.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include <sys/socket.h>

namespace gmgate::bench {

/// An IPv4 (the first four octets) or IPv6 address.
struct Host {
    int family = AF_INET;
    std::array<std::uint8_t, 16> octets{};

    auto operator<=>(const Host&) const = default;
    /// Throws std::runtime_error when `text` is no address.
    static Host parse(const std::string& text);
    /// As in a URI or Via: an IPv6 address in brackets.
    std::string text() const;
    /// The address `n` further; phones are numbered by their addresses.
    Host plus(std::uint32_t n) const;
    /// The n of plus(n) that leads from `first` here; huge when this address lies before it.
    std::uint32_t number_from(const Host& first) const;
};

struct Peer {
    Host host;
    std::uint16_t port = 0;

    auto operator<=>(const Peer&) const = default;
    /// "10.0.0.1:5060", "[fd00::1]:5060"; without a port 5060.
    static Peer parse(std::string_view text);
    std::string text() const { return host.text() + ":" + std::to_string(port); }
    /// Writes the socket address and returns its length.
    socklen_t put(sockaddr_storage& out) const;
    static Peer from(const sockaddr_storage& address);
};

/// A UDP socket bound to this port of `host`, or of every address when `host` is all zeroes. It reports at which
/// address a datagram came. Throws when it cannot be bound.
int udp_socket(const Peer& at);
/// A listening TCP socket, of every address as well.
int tcp_listener(const Peer& at);
/// A TCP connection from an address that need not be configured; -1 when it fails. Blocks until the kernel has it.
int tcp_connection(const Peer& from, const Peer& to);

/// Sends from `from` (an address of this machine's local route).
void send_datagram(int fd, const Host& from, const Peer& to, std::string_view text);

struct Datagram {
    std::string_view text;
    Peer from;
    Host to;
};

/// What is there now, in one call for up to 32 datagrams. A Datagram lives until the next take().
class Inbox {
public:
    /// The number of datagrams; 0 when there is none.
    int take(int fd);
    Datagram operator[](int i) const;

private:
    static constexpr int kBatch = 32;
    static constexpr std::size_t kOctets = 8192;
    std::array<std::array<char, kOctets>, kBatch> text_{};
    std::array<std::array<char, 128>, kBatch> control_{};
    std::array<sockaddr_storage, kBatch> from_{};
    std::array<mmsghdr, kBatch> headers_{};
    std::array<iovec, kBatch> parts_{};
};

/// The value of the first header field of that name, from `offset` on; empty when there is none.
std::string_view header(std::string_view message, std::string_view name);
/// Whether this line is a field of that name, or of its compact form.
bool is_field(std::string_view line, std::string_view name, std::string_view compact = "");
/// The number behind `name=`; 0 without.
std::uint32_t number_of(std::string_view value, std::string_view name);
/// The text behind `name=` up to one of ";, \r\n"; empty without.
std::string_view text_of(std::string_view value, std::string_view name);
inline bool is_response(std::string_view message) { return message.starts_with("SIP/2.0 "); }
int status_of(std::string_view response);

}  // namespace gmgate::bench
