// Messages as phones write them that save octets.
#pragma once

#include <string>
#include <string_view>

namespace gmgate::peers {

/// A message with compact header names, where there are such (RFC 3261 §7.3.3); start line, folds and body stay.
[[nodiscard]] std::string with_compact_names(std::string_view text);

}  // namespace gmgate::peers
