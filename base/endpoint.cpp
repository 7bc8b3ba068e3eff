#include "base/endpoint.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <span>

namespace gmgate {
namespace {

/// "192.0.2.1". Each message has several, and inet_ntop() goes through sprintf().
std::string dotted(std::span<const std::uint8_t, 16> bytes) {
    std::array<char, sizeof "255.255.255.255"> text;
    char* at = text.data();
    for (std::size_t i = 0; i < 4; ++i) {
        if (i != 0) *at++ = '.';
        at = std::to_chars(at, text.data() + text.size(), bytes[i]).ptr;
    }
    return {text.data(), at};
}

}  // namespace

Address Address::v4(std::array<std::uint8_t, 4> bytes) {
    Address a;
    std::copy(bytes.begin(), bytes.end(), a.bytes_.begin());
    return a;
}

Address Address::v6(std::array<std::uint8_t, 16> bytes) {
    constexpr std::array<std::uint8_t, 12> kMapped{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    if (std::equal(kMapped.begin(), kMapped.end(), bytes.begin()))
        return v4({bytes[12], bytes[13], bytes[14], bytes[15]});
    Address a;
    a.bytes_ = bytes;
    a.family_ = Family::v6;
    return a;
}

std::optional<Address> Address::parse(std::string_view text) {
    if (text.size() > 1 && text.front() == '[') {
        if (text.back() != ']') return std::nullopt;
        text = text.substr(1, text.size() - 2);
        if (text.find(':') == std::string_view::npos) return std::nullopt;
    }
    if (text.empty() || text.size() >= INET6_ADDRSTRLEN) return std::nullopt;
    char buffer[INET6_ADDRSTRLEN + 1] = {};
    std::memcpy(buffer, text.data(), text.size());
    std::array<std::uint8_t, 16> six{};
    std::array<std::uint8_t, 4> four{};
    if (inet_pton(AF_INET, buffer, four.data()) == 1) return v4(four);
    if (inet_pton(AF_INET6, buffer, six.data()) == 1) return v6(six);
    return std::nullopt;
}

Address Address::any(Family family) {
    Address a;
    a.family_ = family;
    return a;
}

std::string Address::to_string() const {
    if (!is_v6()) return dotted(bytes_);
    char buffer[INET6_ADDRSTRLEN] = {};
    inet_ntop(af(), bytes_.data(), buffer, sizeof buffer);
    return buffer;
}

std::string Address::to_uri_host() const {
    if (!is_v6()) return to_string();
    std::string host(1, '[');
    host += to_string();
    host += ']';
    return host;
}

std::optional<Endpoint> Endpoint::parse(std::string_view text) {
    const auto colon = text.rfind(':');
    if (colon == std::string_view::npos) return std::nullopt;
    const auto host = text.substr(0, colon);
    if (host.find(':') != std::string_view::npos && host.front() != '[') return std::nullopt;
    const auto address = Address::parse(host);
    std::uint16_t port = 0;
    const auto digits = text.substr(colon + 1);
    const auto [end, ec] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
    if (!address || ec != std::errc{} || end != digits.data() + digits.size()) return std::nullopt;
    return Endpoint{*address, Port{port}};
}

std::optional<Endpoint> Endpoint::from_sockaddr(const sockaddr* address) {
    if (address->sa_family == AF_INET) {
        sockaddr_in in{};
        std::memcpy(&in, address, sizeof in);
        std::array<std::uint8_t, 4> bytes{};
        std::memcpy(bytes.data(), &in.sin_addr, 4);
        return Endpoint{Address::v4(bytes), Port{ntohs(in.sin_port)}};
    }
    if (address->sa_family == AF_INET6) {
        sockaddr_in6 in{};
        std::memcpy(&in, address, sizeof in);
        std::array<std::uint8_t, 16> bytes{};
        std::memcpy(bytes.data(), &in.sin6_addr, 16);
        return Endpoint{Address::v6(bytes), Port{ntohs(in.sin6_port)}};
    }
    return std::nullopt;
}

std::string Endpoint::to_string() const { return address.to_uri_host() + ":" + std::to_string(port.value); }

socklen_t Endpoint::to_sockaddr(sockaddr_storage& out) const {
    out = {};
    if (address.is_v6()) {
        sockaddr_in6 in{};
        in.sin6_family = AF_INET6;
        in.sin6_port = htons(port.value);
        std::memcpy(&in.sin6_addr, address.bytes().data(), 16);
        std::memcpy(&out, &in, sizeof in);
        return sizeof in;
    }
    sockaddr_in in{};
    in.sin_family = AF_INET;
    in.sin_port = htons(port.value);
    std::memcpy(&in.sin_addr, address.bytes().data(), 4);
    std::memcpy(&out, &in, sizeof in);
    return sizeof in;
}

}  // namespace gmgate

std::size_t std::hash<gmgate::Address>::operator()(const gmgate::Address& a) const noexcept {
    // Two multiplications mix all octets. Nobody can make many entries of one of the tables that are keyed with it:
    // each has its budget.
    std::uint64_t high = 0, low = 0;
    std::memcpy(&high, a.bytes().data(), sizeof high);
    std::memcpy(&low, a.bytes().data() + sizeof high, sizeof low);
    std::uint64_t mixed = (high ^ (low * 0x9e3779b97f4a7c15)) * 0xbf58476d1ce4e5b9;
    mixed ^= mixed >> 32;
    return mixed + (a.is_v6() ? 1U : 0U);
}
