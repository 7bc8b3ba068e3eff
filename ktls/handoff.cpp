#include "ktls/handoff.h"

#include <cerrno>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <openssl/bio.h>
#include <openssl/ssl.h>

#include "ktls/kernel_keys.h"
#include "ktls/key_schedule.h"
#include "ktls/session.h"

#ifndef TCP_ULP
#define TCP_ULP 31
#endif

namespace gmgate::ktls {
namespace {

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
    const bool ready = listener.is_open() && pair.client.is_open() &&
                       ::bind(listener.get(), any, sizeof address) == 0 && ::listen(listener.get(), 1) == 0 &&
                       ::getsockname(listener.get(), any, &length) == 0 &&
                       ::connect(pair.client.get(), any, length) == 0;
    if (ready) pair.server = OwnedFd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!pair.server.is_open())
        return system_failure(
            Reaction::refused,
            "kernel TLS cannot be tried: no connection over 127.0.0.1 (is the loopback interface up?)", errno);
    return pair;
}

}  // namespace

Result<void> ktls_available() {
    for (const auto cipher : {Cipher::aes_128_gcm, Cipher::aes_256_gcm, Cipher::chacha20_poly1305}) {
        auto pair = loopback_pair();
        if (!pair) return std::unexpected(std::move(pair.error()));
        const int fd = pair->server.get();
        if (::setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof "tls") != 0)
            return system_failure(
                Reaction::refused,
                "the kernel has no kernel TLS: load the module tls (modprobe tls) before the start, or use a kernel with CONFIG_TLS",
                errno);
        TrafficKeys keys;
        keys.key.expose_for_writing(32);
        keys.iv.expose_for_writing(12);
        for (const auto direction : {Direction::send, Direction::receive})
            if (auto result = set_kernel_key(fd, direction, cipher, keys); !result) return result;
    }
    return {};
}

void load_module() {
    const OwnedFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    // ENOTCONN, once the module is there (kernel: tcp_set_ulp looks for it first).
    static_cast<void>(::setsockopt(socket.get(), IPPROTO_TCP, TCP_ULP, "tls", sizeof "tls"));
}

Result<void> rekey_available() {
    auto pair = loopback_pair();
    if (!pair) return std::unexpected(std::move(pair.error()));
    const int fd = pair->server.get();
    if (::setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof "tls") != 0)
        return system_failure(Reaction::refused, "the kernel has no kernel TLS", errno);
    TrafficKeys keys;
    keys.key.expose_for_writing(32);
    keys.iv.expose_for_writing(12);
    for (const auto direction : {Direction::send, Direction::receive})
        if (auto first = set_kernel_key(fd, direction, Cipher::aes_128_gcm, keys); !first) return first;
    // TLS_TX can be set anew at any time; TLS_RX only behind a KeyUpdate, but a kernel that knows one knows the other.
    if (auto second = set_kernel_key(fd, Direction::send, Cipher::aes_128_gcm, keys); !second)
        return failure(Reaction::refused, "this kernel takes no new keys for a TLS connection; 6.14 and later do (" +
                                              second.error().text + ")");
    return {};
}

Result<bool> hand_off(Session& session, int fd, TrafficSecrets* keep) {
    SSL* const ssl = session.native();
    const auto info = session.info();
    // OpenSSL installs both directions for TLS 1.2 and, before 3.2, only the sending one for 1.3; with the right record
    // numbers, which behind session tickets are not 0. It does not where max_fragment_length was agreed: the kernel
    // cuts at 16384.
    const bool sends = BIO_get_ktls_send(SSL_get_wbio(ssl)) != 0;
    bool receives = BIO_get_ktls_recv(SSL_get_rbio(ssl)) != 0;
    auto secrets = session.take_secrets();
    if (!sends && !receives) return false;
    if (sends && !receives && info.version == Version::tls13) {
        // Nothing has been read under this key yet (read_ahead is off), so its first record is number 0.
        auto keys = traffic_keys(secrets.receive, info.cipher);
        if (!keys) return std::unexpected(std::move(keys.error()));
        if (session.has_pending())
            return failure(Reaction::internal, "OpenSSL has read past the handshake: the kernel cannot take over");
        if (auto result = set_kernel_key(fd, Direction::receive, info.cipher, *keys); !result)
            return std::unexpected(std::move(result.error()));
        receives = true;
    }
    if (!sends || !receives)
        return failure(Reaction::refused, "the kernel took one direction of the TLS connection only");
    if (session.has_pending())
        return failure(Reaction::internal, "OpenSSL has read past the handshake: the kernel cannot take over");
    session.retire();
    if (keep && info.version == Version::tls13) *keep = std::move(secrets);
    return true;
}

}  // namespace gmgate::ktls
