#include "ktls/freed_memory.h"

#include <malloc.h>
#include <openssl/crypto.h>

#include <cstdlib>
#include <cstring>

#include "base/secret.h"

namespace gmgate::ktls {

namespace {

void* give(std::size_t size, const char* /*file*/, int /*line*/) { return size == 0 ? nullptr : std::malloc(size); }

void take(void* memory, const char* /*file*/, int /*line*/) {
    if (memory == nullptr) return;
    wipe(memory, malloc_usable_size(memory));
    std::free(memory);
}

/// realloc() would leave the old place as it is.
void* resize(void* memory, std::size_t size, const char* file, int line) {
    if (memory == nullptr) return give(size, file, line);
    if (size == 0) {
        take(memory, file, line);
        return nullptr;
    }
    const std::size_t had = malloc_usable_size(memory);
    if (size <= had) return memory;
    void* other = std::malloc(size);
    if (other == nullptr) return nullptr;
    std::memcpy(other, memory, had);
    take(memory, file, line);
    return other;
}

}  // namespace

bool wipe_what_openssl_frees() { return CRYPTO_set_mem_functions(&give, &resize, &take) == 1; }

}  // namespace gmgate::ktls
