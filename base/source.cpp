#include "base/source.h"

#include <algorithm>

namespace gmgate {

Address source_prefix(const Address& address) {
    if (!address.is_v6()) return address;
    auto bytes = address.bytes();
    std::fill(bytes.begin() + 8, bytes.end(), std::uint8_t{0});
    return Address::v6(bytes);
}

}  // namespace gmgate
