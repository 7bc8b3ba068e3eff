// The names and addresses that are the gateway's own in a SIP URI, read once: each message is compared with them
// several times.
#pragma once

#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/endpoint.h"
#include "sip/message/headers.h"

namespace gmgate::daemon {

/// A set of own hosts. Copies are cheap: the rules of every message in flight share one list, which nobody changes
/// (hence shared_ptr).
class OwnHosts {
public:
    OwnHosts() = default;
    /// Each "192.0.2.1:5060", "[2001:db8::1]:5060", an address or a name without a port (then any port is ours), or
    /// "name:port".
    OwnHosts(const std::vector<std::string>& hosts);  // NOLINT(google-explicit-constructor): a list of hosts is one
    OwnHosts(std::initializer_list<std::string> hosts) : OwnHosts(std::vector<std::string>(hosts)) {}

    /// Whether host and port of a sip or sips URI are one of them; no port means 5060 (RFC 3261 §19.1.2).
    bool contain(const sip::Uri& uri) const;

private:
    struct Name {
        std::string host;  ///< empty: `address`
        Address address;
        std::optional<Port> port;  ///< none: any
    };
    std::shared_ptr<const std::vector<Name>> names_;
};

}  // namespace gmgate::daemon
