// For fuzz targets that read no SIP: what ends the process when an oracle is broken, and a view of the input.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace gmgate::fuzz {

/// Ends the process, so that a fuzzer keeps the input and a test fails.
inline void require(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "invariant broken: %s\n", what);
    std::abort();
}

inline std::string_view text_of(const unsigned char* data, std::size_t size) {
    return {reinterpret_cast<const char*>(data), size};
}

}  // namespace gmgate::fuzz
