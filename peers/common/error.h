// Errors of the peers: a text that a person at a terminal can act on.
#pragma once

#include <expected>
#include <string>
#include <utility>

#include <fmt/format.h>

namespace gmgate::peers {

/// What went wrong, in words. The peers have one reaction to errors: report and count, so no kinds are needed.
struct Error {
    std::string text;
};

template <class T>
using Result = std::expected<T, Error>;

/// Makes the unexpected value of a Result from a format string.
template <class... Args>
[[nodiscard]] std::unexpected<Error> fail(fmt::format_string<Args...> format, Args&&... args) {
    return std::unexpected(Error{fmt::format(format, std::forward<Args>(args)...)});
}

}  // namespace gmgate::peers
