#include "ktls/kernel_keys.h"

#include <cerrno>
#include <cstring>

#include <linux/tls.h>
#include <sys/socket.h>

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

namespace gmgate::ktls {
namespace {

union CryptoInfo {
    tls12_crypto_info_aes_gcm_128 aes_128;
    tls12_crypto_info_aes_gcm_256 aes_256;
    tls12_crypto_info_chacha20_poly1305 chacha;
};

}  // namespace

Result<KernelSession> kernel_session(int fd) {
    KernelSession session;
    tls_crypto_info told{};
    for (const int direction : {TLS_TX, TLS_RX}) {
        tls_crypto_info
            info{};  // kernel 6.1 do_tls_getsockopt_conf: this size asks for the head alone, which holds no key
        socklen_t size = sizeof info;
        if (::getsockopt(fd, SOL_TLS, direction, &info, &size) != 0) continue;
        (direction == TLS_TX ? session.sends : session.receives) = true;
        told = info;
    }
    if (!session.sends && !session.receives)
        return failure(Reaction::refused, "the kernel carries no TLS on this connection");
    session.version = told.version == TLS_1_3_VERSION ? Version::tls13 : Version::tls12;
    switch (told.cipher_type) {
        case TLS_CIPHER_AES_GCM_128:
            session.cipher = Cipher::aes_128_gcm;
            break;
        case TLS_CIPHER_AES_GCM_256:
            session.cipher = Cipher::aes_256_gcm;
            break;
        case TLS_CIPHER_CHACHA20_POLY1305:
            session.cipher = Cipher::chacha20_poly1305;
            break;
        default:
            return failure(Reaction::refused, "the kernel uses a cipher that is none of ours");
    }
    return session;
}

Result<void> set_kernel_key(int fd, Direction to, Cipher cipher, const TrafficKeys& keys) {
    const int direction = to == Direction::send ? TLS_TX : TLS_RX;
    CryptoInfo info{};
    socklen_t size = 0;
    const auto* key = keys.key.expose().data();
    const auto* iv = keys.iv.expose().data();
    const auto fill_gcm = [&](auto& gcm, std::uint16_t type) {
        gcm.info.version = TLS_1_3_VERSION;
        gcm.info.cipher_type = type;
        std::memcpy(gcm.key, key, sizeof gcm.key);
        std::memcpy(gcm.salt, iv, sizeof gcm.salt);
        std::memcpy(gcm.iv, iv + sizeof gcm.salt, sizeof gcm.iv);
        size = sizeof gcm;
    };
    switch (cipher) {
        case Cipher::aes_128_gcm:
            fill_gcm(info.aes_128, TLS_CIPHER_AES_GCM_128);
            break;
        case Cipher::aes_256_gcm:
            fill_gcm(info.aes_256, TLS_CIPHER_AES_GCM_256);
            break;
        case Cipher::chacha20_poly1305:
            info.chacha.info.version = TLS_1_3_VERSION;
            info.chacha.info.cipher_type = TLS_CIPHER_CHACHA20_POLY1305;
            std::memcpy(info.chacha.key, key, sizeof info.chacha.key);
            std::memcpy(info.chacha.iv, iv, sizeof info.chacha.iv);
            size = sizeof info.chacha;
            break;
    }
    const int result = ::setsockopt(fd, SOL_TLS, direction, &info, size);
    const int code = errno;
    wipe(&info, sizeof info);
    if (result == 0) return {};
    return system_failure(Reaction::refused,
                          std::string("the kernel takes no ") + (direction == TLS_TX ? "TLS_TX" : "TLS_RX") +
                              " key for " + std::string(to_string(cipher)),
                          code);
}

Result<void> rekey(int fd, Direction direction, Cipher cipher, TrafficSecret& secret) {
    TrafficSecret next;
    if (!expand_label(secret, "traffic upd", next.expose_for_writing(secret.size())))
        return failure(Reaction::internal, "OpenSSL derives no next traffic secret (HKDF)");
    auto keys = traffic_keys(next, cipher);
    if (!keys) return std::unexpected(std::move(keys.error()));
    if (auto set = set_kernel_key(fd, direction, cipher, *keys); !set) return set;
    secret = std::move(next);
    return {};
}

}  // namespace gmgate::ktls
