#include "daemon/nat/inner_address.h"

#include "sip/message/headers.h"

namespace gmgate::daemon {

bool is_private(const Address& address) {
    const auto& b = address.bytes();
    if (address.is_v6()) return (b[0] & 0xfe) == 0xfc;
    return b[0] == 10 || (b[0] == 172 && (b[1] & 0xf0) == 16) || (b[0] == 192 && b[1] == 168) ||
           (b[0] == 100 && (b[1] & 0xc0) == 64);
}

std::optional<Address> inner_address_of(const sip::Message& request, const Address& seen) {
    const auto via = sip::top_via(request);
    const auto told = via ? via->sent_by_address() : std::nullopt;
    if (!told || told->family() != seen.family() || *told == seen || !is_private(*told)) return std::nullopt;
    return told;
}

}  // namespace gmgate::daemon
