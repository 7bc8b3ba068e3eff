// IP addresses and endpoints as values, both families alike.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <sys/socket.h>

#include "base/types.h"

namespace gmgate {

enum class Family : std::uint8_t { v4, v6 };

/// An IPv4 or IPv6 address, network byte order, unused bytes zero. An IPv4-mapped IPv6 address is stored as IPv4.
class Address {
public:
    Address() = default;  ///< 0.0.0.0
    static Address v4(std::array<std::uint8_t, 4> bytes);
    static Address v6(std::array<std::uint8_t, 16> bytes);
    /// Accepts "192.0.2.1", "2001:db8::1", "[2001:db8::1]"; nothing else, no names, no zone.
    static std::optional<Address> parse(std::string_view text);
    static Address any(Family family);

    Family family() const { return family_; }
    bool is_v6() const { return family_ == Family::v6; }
    bool is_any() const { return bytes_ == std::array<std::uint8_t, 16>{}; }
    /// 4 or 16 significant bytes at the front.
    const std::array<std::uint8_t, 16>& bytes() const { return bytes_; }
    std::size_t size() const { return is_v6() ? 16 : 4; }
    int af() const { return is_v6() ? AF_INET6 : AF_INET; }
    std::string to_string() const;    ///< "192.0.2.1", "2001:db8::1"
    std::string to_uri_host() const;  ///< IPv6 in brackets, as in a SIP URI or Via

    friend auto operator<=>(const Address&, const Address&) = default;

private:
    std::array<std::uint8_t, 16> bytes_{};
    Family family_ = Family::v4;
};

/// Address and transport port.
struct Endpoint {
    Address address;
    Port port;

    /// "192.0.2.1:5060" or "[2001:db8::1]:5060"; the port is mandatory.
    static std::optional<Endpoint> parse(std::string_view text);
    static std::optional<Endpoint> from_sockaddr(const sockaddr* address);
    std::string to_string() const;
    /// Fills `out` and returns its length.
    socklen_t to_sockaddr(sockaddr_storage& out) const;

    friend auto operator<=>(const Endpoint&, const Endpoint&) = default;
};

}  // namespace gmgate

template <>
struct std::hash<gmgate::Address> {
    std::size_t operator()(const gmgate::Address& a) const noexcept;
};
template <>
struct std::hash<gmgate::Endpoint> {
    std::size_t operator()(const gmgate::Endpoint& e) const noexcept {
        return std::hash<gmgate::Address>{}(e.address) * 31 + e.port.value;
    }
};
