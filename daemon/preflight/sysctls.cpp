// Settings of this machine with which packets vanish without a word.
#include <ifaddrs.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <map>
#include <set>

#include <fmt/format.h>

#include "daemon/config/access.h"
#include "daemon/preflight/finding.h"

namespace gmgate::daemon {
namespace {

std::string line_in_file(const std::string& path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return line;
}

std::map<Address, std::string> interfaces_by_address() {
    std::map<Address, std::string> found;
    ifaddrs* list = nullptr;
    if (getifaddrs(&list) != 0) return found;
    for (const auto* entry = list; entry; entry = entry->ifa_next)
        if (entry->ifa_addr)
            if (const auto end = Endpoint::from_sockaddr(entry->ifa_addr)) found[end->address] = entry->ifa_name;
    freeifaddrs(list);
    return found;
}

// The stricter of the interface's value and that of "all" counts (Documentation/networking/ip-sysctl).
void check_reverse_path(const std::string& interface, std::vector<Finding>& findings) {
    const auto all = line_in_file("/proc/sys/net/ipv4/conf/all/rp_filter");
    const auto own = line_in_file(fmt::format("/proc/sys/net/ipv4/conf/{}/rp_filter", interface));
    if (std::max(all, own) != "1") return;
    findings.push_back(
        {.is_error = false,
         .what = fmt::format("rp_filter is strict on {}: a packet whose sender is routed over another interface is "
                             "dropped without a word",
                             interface),
         .fix = fmt::format("sysctl -w net.ipv4.conf.{}.rp_filter=2, unless all routes are symmetric", interface)});
}

// xfrm_policy_check() passes everything where these are set: the guards would guard nothing.
void check_policies_count(const std::string& interface, std::vector<Finding>& findings) {
    for (const char* family : {"ipv4", "ipv6"})
        for (const char* name : {"disable_policy", "disable_xfrm"}) {
            const auto value = line_in_file(fmt::format("/proc/sys/net/{}/conf/{}/{}", family, interface, name));
            if (value.empty() || value == "0") continue;
            findings.push_back({.what = fmt::format("{} is set on {} ({}): guard policies and SAs do not count there",
                                                    name, interface, family),
                                .fix = fmt::format("sysctl -w net.{}.conf.{}.{}=0", family, interface, name)});
        }
}

void check_port_range(const std::set<Port>& ports, std::vector<Finding>& findings) {
    const auto range = line_in_file("/proc/sys/net/ipv4/ip_local_port_range");
    unsigned first = 0, last = 0;
    if (std::sscanf(range.c_str(), "%u %u", &first, &last) != 2) return;
    const auto reserved = line_in_file("/proc/sys/net/ipv4/ip_local_reserved_ports");
    std::string open;
    for (const Port port : ports)
        if (port.value >= first && port.value <= last && !is_port_in_list(reserved, port))
            open += fmt::format("{}{}", open.empty() ? "" : ",", port.value);
    if (open.empty()) return;
    findings.push_back(
        {.is_error = false,
         .what = fmt::format("ports {} lie in ip_local_port_range ({}-{}): any program may get one of them before "
                             "gmgated starts",
                             open, first, last),
         .fix = fmt::format("sysctl -w net.ipv4.ip_local_reserved_ports={}{}{}", reserved, reserved.empty() ? "" : ",",
                            open)});
}

}  // namespace

bool is_port_in_list(std::string_view list, Port port) {
    while (!list.empty()) {
        const auto comma = std::min(list.find(','), list.size());
        const auto part = list.substr(0, comma);
        list.remove_prefix(std::min(comma + 1, list.size()));
        unsigned first = 0, last = 0;
        const auto dash = part.find('-');
        const auto head = part.substr(0, dash), tail = dash == std::string_view::npos ? head : part.substr(dash + 1);
        const auto number = [](std::string_view digits, unsigned& out) {
            return std::from_chars(digits.data(), digits.data() + digits.size(), out).ec == std::errc{};
        };
        if (number(head, first) && number(tail, last) && port.value >= first && port.value <= last) return true;
    }
    return false;
}

std::vector<Finding> check_sysctls(const Config& config) {
    std::vector<Finding> findings;
    const auto here = interfaces_by_address();
    std::set<std::string> with_ports, with_guards;
    std::set<Port> ports;
    const AccessMap accesses(config);
    for (const auto& access : accesses.all()) {
        const auto at = here.find(access.address);
        if (at != here.end() && !access.address.is_v6()) with_ports.insert(at->second);
        if (at != here.end() && access.profile) with_guards.insert(at->second);
    }
    for (const Endpoint& local : config.core.listen)
        if (const auto at = here.find(local.address); at != here.end() && !local.address.is_v6())
            with_ports.insert(at->second);
    for (const auto& socket : sockets_of(config)) ports.insert(socket.local.port);
    for (const auto& interface : with_ports) check_reverse_path(interface, findings);
    for (const auto& interface : with_guards) check_policies_count(interface, findings);
    check_port_range(ports, findings);
    return findings;
}

}  // namespace gmgate::daemon
