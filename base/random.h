// Unpredictable numbers from the kernel.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace gmgate {

/// Fills `out` from getrandom(2); aborts the process if the kernel cannot give random bytes (fail closed).
void random_bytes(std::span<std::uint8_t> out);
std::uint64_t random_u64();
/// `bytes` random octets as lower-case hexadecimal.
std::string random_hex(std::size_t bytes);

}  // namespace gmgate
