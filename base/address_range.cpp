#include "base/address_range.h"

#include <charconv>

namespace gmgate {
namespace {

bool has_bit(const Address& address, std::size_t bit) { return (address.bytes()[bit / 8] & (0x80U >> (bit % 8))) != 0; }

}  // namespace

std::optional<AddressRange> AddressRange::parse(std::string_view text) {
    const auto slash = text.find('/');
    const auto first = Address::parse(text.substr(0, slash));
    if (!first) return std::nullopt;
    const std::size_t bits = first->size() * 8;
    std::size_t length = bits;
    if (slash != std::string_view::npos) {
        const std::string_view digits = text.substr(slash + 1);
        const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), length);
        if (error != std::errc{} || end != digits.data() + digits.size() || length > bits) return std::nullopt;
    }
    for (std::size_t bit = length; bit < bits; ++bit)
        if (has_bit(*first, bit)) return std::nullopt;  // "10.2.0.5/16" is a slip of the pen: which did he mean?
    return AddressRange(*first, length);
}

bool AddressRange::contains(const Address& address) const {
    if (address.family() != first_.family()) return false;
    for (std::size_t bit = 0; bit < length_; ++bit)
        if (has_bit(address, bit) != has_bit(first_, bit)) return false;
    return true;
}

std::string AddressRange::to_string() const { return first_.to_string() + "/" + std::to_string(length_); }

}  // namespace gmgate
