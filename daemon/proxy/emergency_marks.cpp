#include "daemon/proxy/emergency_marks.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "base/random.h"
#include "sip/message/headers.h"

namespace gmgate::daemon {

namespace {

constexpr std::string_view kBegin = "sos";
constexpr std::size_t kRandomOctets = 12;
constexpr std::string_view kTransports = "uts";  ///< in the order of sip::Transport

void add_endpoint(std::string& text, const Endpoint& endpoint) {
    for (std::size_t i = 0; i < endpoint.address.size(); ++i)
        text += fmt::format("{:02x}", endpoint.address.bytes()[i]);
    text += fmt::format("{:04x}", endpoint.port.value);
}

std::optional<unsigned> number_in(std::string_view digits) {
    unsigned value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
    if (error != std::errc{} || end != digits.data() + digits.size()) return std::nullopt;
    return value;
}

template <std::size_t kOctets>
std::optional<std::array<std::uint8_t, kOctets>> octets_in(std::string_view digits) {
    std::array<std::uint8_t, kOctets> octets{};
    for (std::size_t i = 0; i < kOctets; ++i) {
        const auto octet = number_in(digits.substr(2 * i, 2));
        if (!octet) return std::nullopt;
        octets[i] = static_cast<std::uint8_t>(*octet);
    }
    return octets;
}

/// An endpoint as add_endpoint() wrote it, of four octets of address or sixteen.
std::optional<Endpoint> endpoint_in(std::string_view digits) {
    const auto port = number_in(digits.substr(digits.size() - 4));
    if (!port) return std::nullopt;
    const Port number{static_cast<std::uint16_t>(*port)};
    if (digits.size() == 2 * 4 + 4) {
        const auto octets = octets_in<4>(digits);
        return octets ? std::optional(Endpoint{Address::v4(*octets), number}) : std::nullopt;
    }
    const auto octets = octets_in<16>(digits);
    return octets ? std::optional(Endpoint{Address::v6(*octets), number}) : std::nullopt;
}

/// What phones rewrite in a URI (parameters, case of the host, a port that was left out) leads nowhere else.
std::string target_text(std::string_view target) {
    const auto uri = sip::Uri::parse(target);
    if (!uri || !uri->is_sip()) return std::string(target);
    std::string place = fmt::format("{}:{}", uri->host, uri->port.value != 0 ? uri->port.value : 5060);
    std::ranges::transform(place, place.begin(),
                           [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; });
    return fmt::format("{}@{}", uri->user, place);
}

}  // namespace

std::string emergency_token(const sip::Flow& ue) {
    std::string token =
        fmt::format("{}{}-{}", kBegin, random_hex(kRandomOctets), kTransports[static_cast<std::size_t>(ue.transport)]);
    add_endpoint(token, ue.local);
    add_endpoint(token, ue.remote);
    return token;
}

std::optional<sip::Flow> way_in_token(std::string_view token) {
    constexpr std::size_t kHead = kBegin.size() + 2 * kRandomOctets;
    if (!token.starts_with(kBegin) || token.size() < kHead + 2 || token[kHead] != '-') return std::nullopt;
    const std::size_t transport = kTransports.find(token[kHead + 1]);
    const std::string_view ends = token.substr(kHead + 2);
    const bool has_size = ends.size() == 2 * (2 * 4 + 4) || ends.size() == 2 * (2 * 16 + 4);
    if (transport == std::string_view::npos || !has_size) return std::nullopt;
    const auto local = endpoint_in(ends.substr(0, ends.size() / 2));
    const auto remote = endpoint_in(ends.substr(ends.size() / 2));
    if (!local || !remote) return std::nullopt;
    sip::Flow way;
    way.transport = static_cast<sip::Transport>(transport);
    way.local = *local;
    way.remote = *remote;
    return way;
}

ContactKey emergency_owner(std::string_view token, std::string_view ue_tag, std::string_view target) {
    return {Impi(std::string()), fmt::format("{} {}", token, ue_tag), target_text(target)};
}

}  // namespace gmgate::daemon
