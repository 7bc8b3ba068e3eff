// An IPv4 or IPv6 address with a port, as a value.
#pragma once

#include "error.h"

#include <sys/socket.h>

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

namespace gmgate::peers {

class Endpoint {
public:
    Endpoint() = default;
    /// "10.0.0.1", "10.0.0.1:5060", "2001:db8::1", "[2001:db8::1]:5060"; numeric only.
    [[nodiscard]] static Result<Endpoint> parse(std::string_view text, std::uint16_t default_port);
    [[nodiscard]] static Endpoint from(const sockaddr_storage& storage);

    [[nodiscard]] int family() const { return storage_.ss_family; }
    [[nodiscard]] bool is_v6() const { return family() == AF_INET6; }
    [[nodiscard]] std::uint16_t port() const;
    [[nodiscard]] Endpoint with_port(std::uint16_t port) const;
    /// The same port on the address that lies `offset` above this one.
    [[nodiscard]] Endpoint advanced(std::uint32_t offset) const;
    /// Address alone, without brackets.
    [[nodiscard]] std::string address() const;
    /// Address as it stands in a URI: IPv6 in brackets.
    [[nodiscard]] std::string host() const;
    /// host:port
    [[nodiscard]] std::string to_string() const;
    [[nodiscard]] bool same_address(const Endpoint& other) const { return address() == other.address(); }
    [[nodiscard]] const sockaddr* raw() const { return reinterpret_cast<const sockaddr*>(&storage_); }
    [[nodiscard]] socklen_t raw_size() const;
    [[nodiscard]] const void* raw_address() const;
    [[nodiscard]] std::size_t raw_address_size() const { return is_v6() ? 16 : 4; }

    bool operator==(const Endpoint& other) const {
        return family() == other.family() && to_string() == other.to_string();
    }
    auto operator<=>(const Endpoint& other) const { return to_string() <=> other.to_string(); }

private:
    sockaddr_storage storage_{};
};

}  // namespace gmgate::peers
