#include "load_identity.h"

namespace gmgate::peers {

std::string imsi_at(std::string_view first, std::size_t index) {
    std::string out(first);
    for (std::size_t i = out.size(), carry = index; i-- > 0 && carry != 0;) {
        carry += static_cast<std::size_t>(out[i] - '0');
        out[i] = static_cast<char>('0' + carry % 10);
        carry /= 10;
    }
    return out;
}

Key<16> key_at(const Key<16>& k, std::size_t index) {
    Key<16> out = k.clone();
    for (std::size_t i = 0; i < 4; ++i) out.buffer()[15 - i] ^= static_cast<std::uint8_t>(index >> (8 * i));
    return out;
}

}  // namespace gmgate::peers
