#include "ktls/key_schedule.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/ssl.h>

#include "ktls/key_log.h"

namespace gmgate::ktls {
namespace {

int nibble(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

}  // namespace

bool expand_label(const TrafficSecret& secret, std::string_view label, std::span<std::uint8_t> out) {
    // struct HkdfLabel: uint16 length, opaque label<7..255> with prefix "tls13 ", opaque context<0..255> (empty here).
    constexpr std::string_view kPrefix = "tls13 ";
    std::array<std::uint8_t, 64> info{};
    if (label.size() > 32 || out.size() > 255) return false;
    std::size_t size = 0;
    info[size++] = 0;
    info[size++] = static_cast<std::uint8_t>(out.size());
    info[size++] = static_cast<std::uint8_t>(kPrefix.size() + label.size());
    for (const auto part : {kPrefix, label})
        for (const char c : part) info[size++] = static_cast<std::uint8_t>(c);
    info[size++] = 0;

    struct Free {
        void operator()(EVP_KDF* kdf) const noexcept { EVP_KDF_free(kdf); }
        void operator()(EVP_KDF_CTX* kdf) const noexcept { EVP_KDF_CTX_free(kdf); }
    };
    const std::unique_ptr<EVP_KDF, Free> kdf(EVP_KDF_fetch(nullptr, "HKDF", nullptr));
    const std::unique_ptr<EVP_KDF_CTX, Free> context(kdf ? EVP_KDF_CTX_new(kdf.get()) : nullptr);
    if (!context) return false;
    int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
    char digest[8] = "SHA256";
    if (secret.size() == 48) std::memcpy(digest, "SHA384", 7);
    const auto bytes = secret.expose();
    const OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, const_cast<std::uint8_t*>(bytes.data()), bytes.size()),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info.data(), size), OSSL_PARAM_construct_end()};
    return EVP_KDF_derive(context.get(), out.data(), out.size(), parameters) == 1;
}

Result<TrafficKeys> traffic_keys(const TrafficSecret& secret, Cipher cipher) {
    const std::size_t expected = cipher == Cipher::aes_256_gcm ? 48 : 32;
    if (secret.size() != expected)
        return failure(Reaction::internal, "the handshake left no traffic secret of the suite's length");
    TrafficKeys keys;
    if (!expand_label(secret, "key", keys.key.expose_for_writing(cipher == Cipher::aes_128_gcm ? 16 : 32)) ||
        !expand_label(secret, "iv", keys.iv.expose_for_writing(12)))
        return failure(Reaction::internal, "OpenSSL derives no traffic keys (HKDF)");
    return keys;
}

void keep_traffic_secret(const ssl_st* ssl, const char* line) {
    log_key_line(line);
    auto* kept = static_cast<KeptSecret*>(SSL_get_app_data(ssl));
    if (kept == nullptr) return;
    // "LABEL client_random secret", both in hexadecimal.
    const std::string_view text(line);
    const auto label_end = text.find(' ');
    const auto secret_at = text.rfind(' ');
    if (label_end == std::string_view::npos || secret_at == label_end) return;
    const auto label = text.substr(0, label_end);
    if (label != "CLIENT_TRAFFIC_SECRET_0" && label != "SERVER_TRAFFIC_SECRET_0") return;
    auto& secret = (label[0] == 'C') == (kept->role == Role::server) ? kept->secrets.receive : kept->secrets.send;
    const auto hex = text.substr(secret_at + 1);
    if (hex.size() != 64 && hex.size() != 96) return;
    auto bytes = secret.expose_for_writing(hex.size() / 2);
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        const int high = nibble(hex[2 * i]), low = nibble(hex[2 * i + 1]);
        if (high < 0 || low < 0) return secret.clear();
        bytes[i] = static_cast<std::uint8_t>(high * 16 + low);
    }
}

}  // namespace gmgate::ktls
