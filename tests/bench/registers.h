// The messages that the parse benchmark reads: REGISTER requests with Security-Client values of real phones.
#pragma once

#include <string>
#include <string_view>

namespace gmgate::bench {

/// The Security-* value of that name in tests/unit/data/handset_headers.txt; throws when there is none.
std::string handset_value(std::string_view name);

/// A first REGISTER, 14 header fields in their long forms, with the Security-Client value of that phone.
std::string long_register(std::string_view phone);
/// A first REGISTER in the spelling of the phone of the CMCC capture: compact names, Authorization before Expires,
/// IPv6.
std::string compact_register(std::string_view phone);

}  // namespace gmgate::bench
