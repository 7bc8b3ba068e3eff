#include "daemon/access.h"

#include <algorithm>

#include <fmt/format.h>

namespace gmgate::daemon {

AccessMap::AccessMap(const Config& config) {
    own_hosts_.push_back(config.core.listen.to_string());
    for (const auto& interface : config.sip_interfaces) {
        for (const auto& port : interface.sip_ports) {
            const auto same = std::ranges::find_if(accesses_, [&](const Access& a) { return a.address == port.address && a.interface == &interface; });
            const auto* profile = config.profile(port.ims_aka_profile);
            const auto index = static_cast<std::size_t>(same - accesses_.begin());
            if (same == accesses_.end()) accesses_.push_back({&interface, profile, port.address});
            else if (!same->profile) same->profile = profile;
            doors_[{port.address, port.port}] = {index, false};
            own_hosts_.push_back(Endpoint{port.address, port.port}.to_string());
            if (port.port.value == 5060) own_hosts_.push_back(port.address.to_uri_host());
            if (!interface.host.empty()) own_hosts_.push_back(fmt::format("{}:{}", interface.host, port.port.value));
        }
        if (!interface.host.empty()) own_hosts_.push_back(interface.host);
    }
    for (std::size_t index = 0; index < accesses_.size(); ++index) {
        const auto& access = accesses_[index];
        if (!access.profile) continue;
        for (const auto port : access.profile->all_ports()) {
            doors_[{access.address, port}] = {index, true};
            own_hosts_.push_back(Endpoint{access.address, port}.to_string());
            if (!access.interface->host.empty()) own_hosts_.push_back(fmt::format("{}:{}", access.interface->host, port.value));
        }
    }
}

const Access* AccessMap::find(const Endpoint& local) const {
    const auto at = doors_.find(local);
    return at == doors_.end() ? nullptr : &accesses_[at->second.access];
}

bool AccessMap::is_protected(const Endpoint& local) const {
    const auto at = doors_.find(local);
    return at != doors_.end() && at->second.is_protected;
}

}  // namespace gmgate::daemon
