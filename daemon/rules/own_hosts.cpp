#include "daemon/rules/own_hosts.h"

#include <algorithm>

namespace gmgate::daemon {

OwnHosts::OwnHosts(const std::vector<std::string>& hosts) {
    auto names = std::make_shared<std::vector<Name>>();
    for (const std::string& host : hosts) {
        if (const auto endpoint = Endpoint::parse(host)) {
            names->push_back({"", endpoint->address, endpoint->port});
        } else if (const auto address = Address::parse(host)) {
            names->push_back({"", *address, std::nullopt});
        } else {
            const std::size_t colon = host.find(':');
            Name name{host.substr(0, colon), {}, std::nullopt};
            // A port that is no number matches nothing: no URI has port 0.
            if (colon != std::string::npos)
                name.port = Port{
                    static_cast<std::uint16_t>(sip::parse_u32(std::string_view(host).substr(colon + 1)).value_or(0))};
            names->push_back(std::move(name));
        }
    }
    names_ = std::move(names);
}

bool OwnHosts::contain(const sip::Uri& uri) const {
    if (!names_ || !uri.is_sip() || uri.host.empty()) return false;
    // Only what can be an address is read as one.
    const char first = uri.host.front();
    const bool may_be_address = (first >= '0' && first <= '9') || uri.host.find(':') != std::string_view::npos;
    const auto address = may_be_address ? Address::parse(uri.host) : std::nullopt;
    const Port port = uri.port.value != 0 ? uri.port : Port{5060};
    return std::ranges::any_of(*names_, [&](const Name& own) {
        if (own.port && *own.port != port) return false;
        return own.host.empty() ? address == own.address : sip::same_token(own.host, uri.host);
    });
}

}  // namespace gmgate::daemon
