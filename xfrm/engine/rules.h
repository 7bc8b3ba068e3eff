// What an engine does for gmgated and what it refuses: pure. gmgated parses bytes from a radio network and is not
// trusted here.
#pragma once

#include <functional>
#include <unordered_map>
#include <vector>

#include "xfrm/engine/frames.h"

namespace gmgate::xfrm {

/// Built once from the configuration of the privileged start. Every check that fails is Reaction::refused with EPERM
/// and says which rule was broken. Removing and extending are checked here for address and ports, and by the kernel
/// object for reqid and selector, because an SA of an earlier configuration may have an SPI outside of the range.
class EngineRules {
public:
    explicit EngineRules(EngineConfiguration configuration);

    /// A new set: our reqid, mark inside of the mask, inbound SPIs in the range, our address and protected ports, a UE
    /// address that is one.
    Result<void> check_install(const SetRequest& request, ReqId reqid) const;
    /// A set to be extended, removed or told of.
    Result<void> check_set(const SetParameters& parameters) const;
    /// Guards only where protected ports are.
    Result<void> check_guards(const GuardRequest& request) const;

    const EngineConfiguration& configuration() const { return configuration_; }

private:
    bool is_protected(const Address& gateway, Port port, Mode mode) const;

    EngineConfiguration configuration_;
    std::unordered_map<Address, std::vector<PortRange>> ports_;
};

}  // namespace gmgate::xfrm
