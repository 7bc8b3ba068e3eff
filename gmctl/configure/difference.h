// What a change of the file would be, as people read it.
#pragma once

#include <string>
#include <string_view>

namespace gmgate::daemon::configure {

/// Unified difference of two texts, by lines and with three lines around each change, as `diff -u` prints it; `name`
/// stands for both. Empty when they are equal.
std::string difference(std::string_view before, std::string_view after, std::string_view name);

}  // namespace gmgate::daemon::configure
