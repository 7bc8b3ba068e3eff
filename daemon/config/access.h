// The access side as the running gateway sees it: which interface and profile a local address and port belong to.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "daemon/config/config.h"
#include "xfrm/sa.h"

namespace gmgate::daemon {

/// One access address of an interface, with the profile of its protected ports.
struct Access {
    const SipInterface* interface = nullptr;
    const ImsAkaProfile* profile = nullptr;  ///< null: no ipsec-3gpp here
    Address address;
};

/// Built once from the configuration; the configuration must outlive it.
class AccessMap {
public:
    explicit AccessMap(const Config& config);
    /// The access that a local endpoint serves: clear or protected port; null for others (the core side).
    const Access* find(const Endpoint& local) const;
    /// True for a protected port (port_ps or port_pc) of an access address.
    bool is_protected(const Endpoint& local) const;
    const std::vector<Access>& all() const { return accesses_; }
    /// What the guard policies cover: the protected ports of each access address, each profile of an address once.
    std::vector<xfrm::GuardRequest> guard_requests() const;
    /// All protected ports of access addresses, of both modes, each once.
    std::vector<Endpoint> protected_ports() const;
    /// Access addresses with nat-traversal = "on": ESP comes to them inside UDP.
    std::vector<Address> encapsulation_addresses() const;

private:
    std::vector<Access> accesses_;
    struct Door {
        std::size_t access = 0;
        bool is_protected = false;
    };
    std::unordered_map<Endpoint, Door> doors_;
};

}  // namespace gmgate::daemon
