#include "tests/bench/allocations.h"

#include <cerrno>
#include <cstddef>

// The GNU C library's own names for its allocator, there for programs that replace malloc.
extern "C" {
void* __libc_malloc(std::size_t size);
void* __libc_calloc(std::size_t count, std::size_t size);
void* __libc_realloc(void* memory, std::size_t size);
void* __libc_memalign(std::size_t alignment, std::size_t size);
}

namespace {

// Not atomic on purpose: it would cost the contenders that allocate, and the benchmark has one thread.
constinit gmgate::bench::Allocations g_allocations;

void count(std::size_t size) {
    ++g_allocations.calls;
    g_allocations.octets += size;
}

}  // namespace

namespace gmgate::bench {
Allocations allocations_so_far() { return g_allocations; }
}  // namespace gmgate::bench

extern "C" {

void* malloc(std::size_t size) noexcept {
    count(size);
    return __libc_malloc(size);
}

void* calloc(std::size_t number, std::size_t size) noexcept {
    count(number * size);
    return __libc_calloc(number, size);
}

void* realloc(void* memory, std::size_t size) noexcept {
    count(size);
    return __libc_realloc(memory, size);
}

void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
    count(size);
    return __libc_memalign(alignment, size);
}

int posix_memalign(void** out, std::size_t alignment, std::size_t size) noexcept {
    count(size);
    *out = __libc_memalign(alignment, size);
    return *out ? 0 : ENOMEM;
}

}  // extern "C"
