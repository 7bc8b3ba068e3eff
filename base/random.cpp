#include "base/random.h"

#include <sys/random.h>

#include <cerrno>
#include <cstdlib>

namespace gmgate {

void random_bytes(std::span<std::uint8_t> out) {
    while (!out.empty()) {
        const ssize_t n = getrandom(out.data(), out.size(), 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) std::abort();
        out = out.subspan(static_cast<std::size_t>(n));
    }
}

std::uint64_t random_u64() {
    std::uint64_t value = 0;
    random_bytes({reinterpret_cast<std::uint8_t*>(&value), sizeof value});
    return value;
}

std::string random_hex(std::size_t bytes) {
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string text;
    text.reserve(bytes * 2);
    for (std::size_t i = 0; i < bytes; ++i) {
        std::uint8_t b = 0;
        random_bytes({&b, 1});
        text += kDigits[b >> 4];
        text += kDigits[b & 15];
    }
    return text;
}

}  // namespace gmgate
