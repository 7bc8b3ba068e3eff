// How the support reports that the system refused something.
#pragma once

#include <cerrno>
#include <string>
#include <system_error>

namespace gmgate::test {

/// Throws errno as std::system_error; `what` names the call, or what it was for.
[[noreturn]] inline void fail(const std::string& what) {
    throw std::system_error(errno, std::generic_category(), what);
}

}  // namespace gmgate::test
