#include "daemon/config/access.h"

#include <algorithm>
#include <set>
#include <utility>

namespace gmgate::daemon {
namespace {

xfrm::GuardRequest guards_of(const Access& access) {
    xfrm::GuardRequest request{access.address, access.profile->transport_ports()};
    if (access.profile->nat.is_on) request.nat = access.profile->nat.block();
    return request;
}

}  // namespace

AccessMap::AccessMap(const Config& config) {
    for (const auto& interface : config.sip_interfaces) {
        for (const auto& port : interface.sip_ports) {
            const auto same = std::ranges::find_if(
                accesses_, [&](const Access& a) { return a.address == port.address && a.interface == &interface; });
            const auto* profile = config.profile(port.ims_aka_profile);
            const auto index = static_cast<std::size_t>(same - accesses_.begin());
            if (same == accesses_.end()) accesses_.push_back({&interface, profile, port.address});
            else if (!same->profile) same->profile = profile;
            doors_[{port.address, port.port}] = {index, false};
        }
    }
    for (std::size_t index = 0; index < accesses_.size(); ++index) {
        const auto& access = accesses_[index];
        if (!access.profile) continue;
        for (const auto port : access.profile->all_ports()) doors_[{access.address, port}] = {index, true};
    }
}

const Access* AccessMap::find(const Endpoint& local) const {
    const auto at = doors_.find(local);
    return at == doors_.end() ? nullptr : &accesses_[at->second.access];
}

std::vector<xfrm::GuardRequest> AccessMap::guard_requests() const {
    std::set<std::pair<Address, const ImsAkaProfile*>> done;
    std::vector<xfrm::GuardRequest> requests;
    for (const auto& access : accesses_)
        if (access.profile && done.emplace(access.address, access.profile).second)
            requests.push_back(guards_of(access));
    return requests;
}

std::vector<Endpoint> AccessMap::protected_ports() const {
    std::set<Endpoint> ports;
    for (const auto& access : accesses_)
        if (access.profile)
            for (const auto port : access.profile->all_ports()) ports.insert({access.address, port});
    return {ports.begin(), ports.end()};
}

std::vector<Address> AccessMap::encapsulation_addresses() const {
    std::set<Address> addresses;
    for (const auto& access : accesses_)
        if (access.profile && access.profile->nat.is_on) addresses.insert(access.address);
    return {addresses.begin(), addresses.end()};
}

bool AccessMap::is_protected(const Endpoint& local) const {
    const auto at = doors_.find(local);
    return at != doors_.end() && at->second.is_protected;
}

}  // namespace gmgate::daemon
