// Counts what a piece of code takes from the heap: the program's own malloc stands in front of the C library's, so that
// operator new and the allocations inside of shared libraries count as well.
#pragma once

#include <cstdint>

namespace gmgate::bench {

struct Allocations {
    std::uint64_t calls = 0;  ///< malloc, calloc, realloc and aligned forms
    std::uint64_t octets = 0;
};

/// Since the start of the program. Threads: one.
Allocations allocations_so_far();

template <class F>
Allocations allocations_of(F&& work) {
    const Allocations before = allocations_so_far();
    work();
    const Allocations after = allocations_so_far();
    return {.calls = after.calls - before.calls, .octets = after.octets - before.octets};
}

}  // namespace gmgate::bench
