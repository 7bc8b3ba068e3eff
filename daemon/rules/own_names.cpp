#include "daemon/rules/own_names.h"

#include <algorithm>

#include <fmt/format.h>

#include "daemon/rules/header_rules.h"

namespace gmgate::daemon {

std::optional<sip::Uri> own_uri(std::string_view element, const OwnHosts& own_hosts) {
    const auto address = sip::NameAddr::parse(element);
    const auto uri = address ? sip::Uri::parse(address->uri) : std::nullopt;
    return uri && own_hosts.contain(*uri) ? uri : std::nullopt;
}

OwnHosts own_hosts(const Config& config) {
    std::vector<std::string> hosts;
    const auto add = [&](std::string host) {
        if (std::ranges::find(hosts, host) == hosts.end()) hosts.push_back(std::move(host));
    };
    for (const Endpoint& local : config.core.listen) add(local.to_string());
    for (const SipInterface& interface : config.sip_interfaces) {
        if (!interface.host.empty()) add(interface.host);  // any port
        for (const SipPort& port : interface.sip_ports) {
            add(Endpoint{port.address, port.port}.to_string());
            if (const ImsAkaProfile* profile = config.profile(port.ims_aka_profile))
                for (const Port protected_port : profile->all_ports())
                    add(Endpoint{port.address, protected_port}.to_string());
        }
    }
    return hosts;
}

std::string token_uri(std::string_view token, std::string_view host_and_port) {
    std::string uri;
    uri.reserve(token.size() + host_and_port.size() + 8);
    return uri.append("sip:").append(token).append("@").append(host_and_port).append(";lr");
}

std::string reached_over(std::string host_and_port, sip::Transport transport) {
    switch (transport) {
        case sip::Transport::udp:
            break;
        case sip::Transport::tcp:
            return host_and_port + ";transport=tcp";
        case sip::Transport::tls:
            return host_and_port + ";transport=tls";
    }
    return host_and_port;
}

std::string ue_uri_host(const Config& config, std::string_view realm_id, const Endpoint& ours,
                        sip::Transport transport) {
    const auto interface = std::ranges::find(config.sip_interfaces, realm_id, &SipInterface::realm_id);
    const bool named = interface != config.sip_interfaces.end() && !interface->host.empty();
    return reached_over(named ? fmt::format("{}:{}", interface->host, ours.port.value) : ours.to_string(), transport);
}

OwnRoute split_route(const sip::Message& request, const OwnHosts& own_hosts) {
    OwnRoute route;
    route.rest = values_of(request, sip::HeaderId::route);
    route.ours = count_own_routes(route.rest, own_hosts);
    for (std::size_t i = 0; i < route.ours && route.user.empty(); ++i)
        route.user = own_uri(route.rest[i], own_hosts)->user;
    route.rest.erase(route.rest.begin(), route.rest.begin() + static_cast<std::ptrdiff_t>(route.ours));
    return route;
}

std::optional<std::string_view> own_user_of(const sip::Message& request, const OwnHosts& own_hosts) {
    bool names_us = false;
    for (const std::string_view element : values_of(request, sip::HeaderId::route)) {
        const auto uri = own_uri(element, own_hosts);
        if (!uri) break;
        if (!uri->user.empty()) return uri->user;
        names_us = true;
    }
    if (const auto uri = sip::Uri::parse(request.request_uri()); uri && own_hosts.contain(*uri)) return uri->user;
    if (names_us) return std::string_view();
    return std::nullopt;
}

std::optional<std::string> token_of(const sip::Message& request, const OwnHosts& own_hosts) {
    const auto user = own_user_of(request, own_hosts);
    return user ? std::optional(std::string(token_in(*user))) : std::nullopt;
}

bool asks_gateway(const sip::Message& request, const OwnRoute& route, const OwnHosts& own_hosts) {
    if (!route.rest.empty()) return false;
    const auto uri = sip::Uri::parse(request.request_uri());
    return uri && uri->user.empty() && own_hosts.contain(*uri);
}

std::optional<std::string> token_in_record_route(const sip::Message& response, const OwnHosts& own_hosts) {
    std::optional<std::string> token;  // the last one: when both phones are ours, the caller's stands at the bottom
    for (const std::string_view element : values_of(response, sip::HeaderId::record_route))
        if (const auto uri = own_uri(element, own_hosts); uri && !uri->user.empty())
            token = std::string(token_in(uri->user));
    return token;
}

bool record_route_has(const sip::Message& response, std::string_view token, const OwnHosts& own_hosts) {
    return std::ranges::any_of(values_of(response, sip::HeaderId::record_route), [&](const std::string_view element) {
        const auto uri = own_uri(element, own_hosts);
        return uri && token_in(uri->user) == token;
    });
}

}  // namespace gmgate::daemon
