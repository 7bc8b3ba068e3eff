// Addresses that begin alike, as operators write them: "10.2.0.0/16", "2001:db8::/32", or one address.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "base/endpoint.h"

namespace gmgate {

/// One family, the first `length` bits fixed.
class AddressRange {
public:
    /// Nothing but "ADDRESS" and "ADDRESS/LENGTH" with zeroes behind the length; IPv6 with or without brackets.
    static std::optional<AddressRange> parse(std::string_view text);
    bool contains(const Address& address) const;
    std::string to_string() const;  ///< "10.2.0.0/16"

    friend bool operator==(const AddressRange&, const AddressRange&) = default;

private:
    AddressRange(const Address& first, std::size_t length) : first_(first), length_(length) {}
    Address first_;
    std::size_t length_;
};

}  // namespace gmgate
