// The cryptographic primitives that the peers need, on OpenSSL's EVP interface.
#pragma once

#include "bytes.h"

#include <array>
#include <initializer_list>

namespace gmgate::peers {

enum class Hash { md5, sha256 };

/// Digest of the concatenation of the parts.
[[nodiscard]] Bytes hash(Hash algorithm, std::initializer_list<ByteView> parts);
/// Lower-case hexadecimal digest of the concatenation of the parts (RFC 2617's H()).
[[nodiscard]] std::string hash_hex(Hash algorithm, std::initializer_list<ByteView> parts);
/// HMAC (RFC 2104).
[[nodiscard]] SecretBytes hmac(Hash algorithm, ByteView key, ByteView data);
/// One block of AES-128 in ECB mode: Milenage's kernel function E[x]k, TS 35.206 §3.
[[nodiscard]] std::array<std::uint8_t, 16> aes128_block(std::span<const std::uint8_t, 16> key,
                                                        std::span<const std::uint8_t, 16> block);
/// Comparison in constant time.
[[nodiscard]] bool equal_secret(ByteView a, ByteView b);

}  // namespace gmgate::peers
