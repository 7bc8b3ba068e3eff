#include "crypto.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <memory>
#include <stdexcept>

namespace gmgate::peers {
namespace {

const EVP_MD* message_digest(Hash algorithm) {
    switch (algorithm) {
        case Hash::md5:
            return EVP_md5();
        case Hash::sha256:
            return EVP_sha256();
    }
    throw std::logic_error("unknown hash");
}

// A libcrypto without MD5 or AES cannot run any of these programs: end them rather than compute something else.
void require(bool ok, const char* what) {
    if (!ok) throw std::runtime_error(what);
}

}  // namespace

Bytes hash(Hash algorithm, std::initializer_list<ByteView> parts) {
    const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
    require(context && EVP_DigestInit_ex(context.get(), message_digest(algorithm), nullptr) == 1,
            "digest not available in libcrypto");
    for (const ByteView part : parts)
        require(EVP_DigestUpdate(context.get(), part.data(), part.size()) == 1, "digest failed");
    Bytes out(EVP_MAX_MD_SIZE);
    unsigned int size = 0;
    require(EVP_DigestFinal_ex(context.get(), out.data(), &size) == 1, "digest failed");
    out.resize(size);
    return out;
}

std::string hash_hex(Hash algorithm, std::initializer_list<ByteView> parts) { return to_hex(hash(algorithm, parts)); }

SecretBytes hmac(Hash algorithm, ByteView key, ByteView data) {
    std::array<std::uint8_t, EVP_MAX_MD_SIZE> buffer{};
    unsigned int size = 0;
    require(HMAC(message_digest(algorithm), key.data(), static_cast<int>(key.size()), data.data(), data.size(),
                 buffer.data(), &size) != nullptr,
            "HMAC not available in libcrypto");
    SecretBytes out{ByteView(buffer.data(), size)};
    wipe(buffer.data(), buffer.size());
    return out;
}

std::array<std::uint8_t, 16> aes128_block(std::span<const std::uint8_t, 16> key,
                                          std::span<const std::uint8_t, 16> block) {
    const std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)> context(EVP_CIPHER_CTX_new(),
                                                                                  &EVP_CIPHER_CTX_free);
    require(context && EVP_EncryptInit_ex(context.get(), EVP_aes_128_ecb(), nullptr, key.data(), nullptr) == 1,
            "AES-128 not available in libcrypto");
    require(EVP_CIPHER_CTX_set_padding(context.get(), 0) == 1, "AES-128 failed");
    std::array<std::uint8_t, 16> out{};
    int size = 0;
    require(EVP_EncryptUpdate(context.get(), out.data(), &size, block.data(), 16) == 1 && size == 16, "AES-128 failed");
    return out;
}

bool equal_secret(ByteView a, ByteView b) {
    return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace gmgate::peers
