#include "daemon/rules/contact_uri.h"

#include <charconv>
#include <string>

namespace gmgate::daemon {
namespace {

std::string unescaped(std::string_view text) {
    std::string plain;
    for (std::size_t i = 0; i < text.size(); ++i) {
        unsigned value = 0;
        const auto* digits = text.data() + i + 1;
        if (text[i] == '%' && i + 2 < text.size() && std::from_chars(digits, digits + 2, value, 16).ptr == digits + 2) {
            plain += static_cast<char>(value);
            i += 2;
        } else {
            plain += text[i];
        }
    }
    return plain;
}

std::optional<Address> address_of(std::string_view host) {
    if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
    return Address::parse(host);
}

bool same_host(std::string_view a, std::string_view b) {
    const auto x = address_of(a), y = address_of(b);
    return x && y ? *x == *y : sip::same_token(a, b);
}

Port port_of(const sip::Uri& uri) { return uri.port.value != 0 ? uri.port : Port{5060}; }

}  // namespace

UriFit uri_fit(const sip::Uri& asked, const sip::Uri& listed, const std::optional<Endpoint>& source) {
    if (unescaped(asked.user) != unescaped(listed.user)) return UriFit::other;
    if (same_host(asked.host, listed.host) && port_of(asked) == port_of(listed)) return UriFit::same;
    const auto address = address_of(listed.host);
    const bool is_source = source && address && *address == source->address && port_of(listed) == source->port;
    return is_source ? UriFit::by_source : UriFit::other;
}

}  // namespace gmgate::daemon
