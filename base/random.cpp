#include "base/random.h"

#include <sys/mman.h>
#include <sys/random.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace gmgate {
namespace {

void ask_kernel(std::span<std::uint8_t> out) {
    while (!out.empty()) {
        const ssize_t n = getrandom(out.data(), out.size(), 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) std::abort();
        out = out.subspan(static_cast<std::size_t>(n));
    }
}

/// Octets drawn from the kernel ahead of their use: one system call for many tokens, branches and tags. Each is given
/// out once and wiped. It lies in a page of its own that a forked child finds cleared (MADV_WIPEONFORK), so no two
/// processes give out the same octets.
struct Pool {
    std::size_t left;  ///< the last `left` octets have not been given out yet; 0 after a fork
    std::array<std::uint8_t, 1024> octets;

    void take(std::span<std::uint8_t> out) {
        if (out.size() > left) {
            ask_kernel(octets);
            left = octets.size();
        }
        std::uint8_t* const from = octets.data() + octets.size() - left;
        std::memcpy(out.data(), from, out.size());
        explicit_bzero(from, out.size());
        left -= out.size();
    }
};

/// Of this thread; nullptr where such a page cannot be had.
Pool* pool() {
    struct Page {
        void* memory = mmap(nullptr, sizeof(Pool), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        bool is_usable = memory != MAP_FAILED && madvise(memory, sizeof(Pool), MADV_WIPEONFORK) == 0;
        Page() {
            if (is_usable) (void)madvise(memory, sizeof(Pool), MADV_DONTDUMP);
        }
        Page(const Page&) = delete;
        Page& operator=(const Page&) = delete;
        ~Page() {
            if (memory != MAP_FAILED) munmap(memory, sizeof(Pool));
        }
    };
    thread_local const Page page;
    return page.is_usable ? static_cast<Pool*>(page.memory) : nullptr;
}

/// Larger wishes are keys or tests: they ask the kernel themselves.
constexpr std::size_t kFromPool = 64;

}  // namespace

void random_bytes(std::span<std::uint8_t> out) {
    Pool* const ahead = out.size() <= kFromPool ? pool() : nullptr;
    if (ahead != nullptr) ahead->take(out);
    else ask_kernel(out);
}

std::uint64_t random_u64() {
    std::uint64_t value = 0;
    random_bytes({reinterpret_cast<std::uint8_t*>(&value), sizeof value});
    return value;
}

std::string random_hex(std::size_t bytes) {
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string text(bytes * 2, '0');
    std::array<std::uint8_t, kFromPool> some{};
    for (std::size_t done = 0; done < bytes;) {
        const std::size_t count = std::min(bytes - done, some.size());
        random_bytes(std::span(some).first(count));
        for (std::size_t i = 0; i < count; ++i, ++done) {
            text[2 * done] = kDigits[some[i] >> 4];
            text[2 * done + 1] = kDigits[some[i] & 15];
        }
    }
    return text;
}

}  // namespace gmgate
