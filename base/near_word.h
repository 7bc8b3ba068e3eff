// "Did you mean …": which of the known words a mistyped one is nearest to.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace gmgate {

/// The known word with the fewest letters added, left out, changed or swapped with a neighbour; empty when `given` is
/// one of them already, or when more than a third of the letters would have to change. Upper and lower case are the
/// same.
std::string near_word(std::string_view given, const std::vector<std::string>& known);

/// "; did you mean \"port\"?" or nothing.
std::string did_you_mean(std::string_view given, const std::vector<std::string>& known);

}  // namespace gmgate
