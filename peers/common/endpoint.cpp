#include "endpoint.h"

#include "text.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <array>
#include <cstring>

namespace gmgate::peers {
namespace {

sockaddr_in& v4(sockaddr_storage& s) { return reinterpret_cast<sockaddr_in&>(s); }
const sockaddr_in& v4(const sockaddr_storage& s) { return reinterpret_cast<const sockaddr_in&>(s); }
sockaddr_in6& v6(sockaddr_storage& s) { return reinterpret_cast<sockaddr_in6&>(s); }
const sockaddr_in6& v6(const sockaddr_storage& s) { return reinterpret_cast<const sockaddr_in6&>(s); }

}  // namespace

Result<Endpoint> Endpoint::parse(std::string_view text, std::uint16_t default_port) {
    text = trim(text);
    std::string address(text);
    std::uint16_t port = default_port;
    std::string_view port_text;
    if (text.starts_with('[')) {
        const auto close = text.find(']');
        if (close == std::string_view::npos) return fail("'{}': '[' without ']'", text);
        address = text.substr(1, close - 1);
        if (close + 1 < text.size()) port_text = text.substr(close + 1);
    } else if (const auto colon = text.find(':');
               colon != std::string_view::npos && text.find(':', colon + 1) == std::string_view::npos) {
        address = text.substr(0, colon);
        port_text = text.substr(colon);
    }
    if (!port_text.empty()) {
        const auto number = port_text.starts_with(':') ? to_number<std::uint16_t>(port_text.substr(1)) : std::nullopt;
        if (!number) return fail("'{}' has no valid port", text);
        port = *number;
    }
    Endpoint out;
    if (inet_pton(AF_INET, address.c_str(), &v4(out.storage_).sin_addr) == 1) {
        out.storage_.ss_family = AF_INET;
    } else if (inet_pton(AF_INET6, address.c_str(), &v6(out.storage_).sin6_addr) == 1) {
        out.storage_.ss_family = AF_INET6;
    } else {
        return fail("'{}' is not an IP address", address);
    }
    return out.with_port(port);
}

Endpoint Endpoint::from(const sockaddr_storage& storage) {
    Endpoint out;
    out.storage_ = storage;
    return out;
}

std::uint16_t Endpoint::port() const { return ntohs(is_v6() ? v6(storage_).sin6_port : v4(storage_).sin_port); }

Endpoint Endpoint::with_port(std::uint16_t port) const {
    Endpoint out = *this;
    if (is_v6()) v6(out.storage_).sin6_port = htons(port);
    else v4(out.storage_).sin_port = htons(port);
    return out;
}

Endpoint Endpoint::advanced(std::uint32_t offset) const {
    Endpoint out = *this;
    std::array<std::uint8_t, 16>
        octets{};  // a copy of known size: g++ 12 -O3 warns of the loop over the address itself
    const auto size = raw_address_size();
    std::memcpy(octets.data(), raw_address(), size);
    std::uint64_t carry = offset;
    for (std::size_t i = size; i-- > 0 && carry != 0;) {
        carry += octets[i];
        octets[i] = static_cast<std::uint8_t>(carry & 0xff);
        carry >>= 8;
    }
    std::memcpy(const_cast<void*>(out.raw_address()), octets.data(), size);
    return out;
}

std::string Endpoint::address() const {
    std::array<char, INET6_ADDRSTRLEN> text{};
    return inet_ntop(family(), raw_address(), text.data(), text.size()) ? std::string(text.data())
                                                                        : std::string("unset");
}

std::string Endpoint::host() const { return is_v6() ? '[' + address() + ']' : address(); }

std::string Endpoint::to_string() const { return fmt::format("{}:{}", host(), port()); }

socklen_t Endpoint::raw_size() const { return is_v6() ? sizeof(sockaddr_in6) : sizeof(sockaddr_in); }

const void* Endpoint::raw_address() const {
    return is_v6() ? static_cast<const void*>(&v6(storage_).sin6_addr)
                   : static_cast<const void*>(&v4(storage_).sin_addr);
}

}  // namespace gmgate::peers
