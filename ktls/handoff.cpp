#include "ktls/handoff.h"

#include <array>
#include <cerrno>
#include <cstring>

#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <openssl/bio.h>
#include <openssl/ssl.h>

#include "ktls/key_schedule.h"
#include "ktls/session.h"

#ifndef SOL_TLS
#define SOL_TLS 282
#endif
#ifndef TCP_ULP
#define TCP_ULP 31
#endif

namespace gmgate::ktls {
namespace {

union CryptoInfo {
    tls12_crypto_info_aes_gcm_128 aes_128;
    tls12_crypto_info_aes_gcm_256 aes_256;
    tls12_crypto_info_chacha20_poly1305 chacha;
};

/// linux/tls.h: the twelve IV bytes of TLS 1.3 are salt (4) and iv (8) for AES-GCM, iv (12) for ChaCha20. Record number 0.
Result<void> set_key(int fd, int direction, Cipher cipher, const TrafficKeys& keys) {
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
        case Cipher::aes_128_gcm: fill_gcm(info.aes_128, TLS_CIPHER_AES_GCM_128); break;
        case Cipher::aes_256_gcm: fill_gcm(info.aes_256, TLS_CIPHER_AES_GCM_256); break;
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
    return system_failure(Reaction::refused, std::string("the kernel takes no ") + (direction == TLS_TX ? "TLS_TX" : "TLS_RX") + " key for " + std::string(to_string(cipher)), code);
}

struct LoopbackPair {
    OwnedFd client, server;
};

Result<LoopbackPair> loopback_pair() {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    auto* const any = reinterpret_cast<sockaddr*>(&address);
    const OwnedFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    LoopbackPair pair{OwnedFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)), OwnedFd()};
    const bool ready = listener.is_open() && pair.client.is_open() && ::bind(listener.get(), any, sizeof address) == 0 &&
                       ::listen(listener.get(), 1) == 0 && ::getsockname(listener.get(), any, &length) == 0 &&
                       ::connect(pair.client.get(), any, length) == 0;
    if (ready) pair.server = OwnedFd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!pair.server.is_open()) return system_failure(Reaction::refused, "kernel TLS cannot be tried: no connection over 127.0.0.1 (is the loopback interface up?)", errno);
    return pair;
}

}  // namespace

Result<void> ktls_available() {
    for (const auto cipher : {Cipher::aes_128_gcm, Cipher::aes_256_gcm, Cipher::chacha20_poly1305}) {
        auto pair = loopback_pair();
        if (!pair) return std::unexpected(std::move(pair.error()));
        const int fd = pair->server.get();
        if (::setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof "tls") != 0)
            return system_failure(Reaction::refused, "the kernel has no kernel TLS: load the module tls (modprobe tls) before the start, or use a kernel with CONFIG_TLS", errno);
        TrafficKeys keys;
        keys.key.expose_for_writing(32);
        keys.iv.expose_for_writing(12);
        for (const int direction : {TLS_TX, TLS_RX})
            if (auto result = set_key(fd, direction, cipher, keys); !result) return result;
    }
    return {};
}

Result<bool> hand_off(Session& session, int fd) {
    SSL* const ssl = session.native();
    const auto info = session.info();
    // OpenSSL installs both directions for TLS 1.2 and, before 3.2, only the sending one for 1.3; with the right record numbers, which
    // behind session tickets are not 0. It does not where max_fragment_length was agreed: the kernel cuts at 16384.
    const bool sends = BIO_get_ktls_send(SSL_get_wbio(ssl)) != 0;
    bool receives = BIO_get_ktls_recv(SSL_get_rbio(ssl)) != 0;
    auto secret = session.take_secret();
    if (!sends && !receives) return false;
    if (sends && !receives && info.version == Version::tls13) {
        // Nothing has been read under this key yet (read_ahead is off), so its first record is number 0.
        auto keys = traffic_keys(secret, info.cipher);
        if (!keys) return std::unexpected(std::move(keys.error()));
        if (session.has_pending()) return failure(Reaction::internal, "OpenSSL has read past the handshake: the kernel cannot take over");
        if (auto result = set_key(fd, TLS_RX, info.cipher, *keys); !result) return std::unexpected(std::move(result.error()));
        receives = true;
    }
    if (!sends || !receives) return failure(Reaction::refused, "the kernel took one direction of the TLS connection only");
    if (session.has_pending()) return failure(Reaction::internal, "OpenSSL has read past the handshake: the kernel cannot take over");
    session.retire();
    return true;
}

}  // namespace gmgate::ktls
