// The words of this folder: versions, ciphers, what a session is, and what is counted.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

struct ssl_st;
struct ssl_ctx_st;

namespace gmgate::ktls {

/// TS 33.210 §6.2.1: nothing older than 1.2 is supported.
enum class Version : std::uint8_t { tls12, tls13 };
/// The AEADs that the suites of TS 33.210 §6.2 and Linux' kernel TLS have in common.
enum class Cipher : std::uint8_t { aes_128_gcm, aes_256_gcm, chacha20_poly1305 };
enum class Role : std::uint8_t { server, client };
/// Whether finished handshakes are handed to the kernel: off = never; preferred = where the kernel can, else OpenSSL
/// carries the connection and that is counted; required = a connection that the kernel cannot carry fails.
enum class KernelTls : std::uint8_t { off, preferred, required };

std::string_view to_string(Version version);  ///< "TLSv1.3"
std::string_view to_string(Cipher cipher);    ///< "AES-128-GCM"
std::string_view to_string(KernelTls mode);   ///< "preferred", as in the configuration

/// What the handshake agreed on.
struct SessionInfo {
    Version version = Version::tls13;
    Cipher cipher = Cipher::aes_128_gcm;
    Role role = Role::server;
    bool resumed = false;
};

/// Why a handshake failed, as far as an operator would act differently.
enum class HandshakeFailure : std::uint8_t {
    timed_out,  ///< half a handshake held open
    not_tls,    ///< the first bytes are no TLS record
    no_common_version,
    no_common_cipher,  ///< cipher suite, group or signature algorithm
    unknown_name,      ///< SNI names nobody, and strict_server_name is on
    peer_alert,        ///< the peer refused: unknown CA, bad certificate, …
    peer_closed,
    bad_message,  ///< malformed or out of order
    certificate,  ///< client side: the server's certificate does not verify
    kernel,       ///< the hand-off failed half-way, or kernel TLS is required and this connection cannot have it
    internal,
};
inline constexpr std::size_t kHandshakeFailures = static_cast<std::size_t>(HandshakeFailure::internal) + 1;
std::string_view to_string(HandshakeFailure failure);  ///< "timed-out", a metric's label

struct Counters {
    std::uint64_t handshakes_ok = 0;
    std::uint64_t resumed = 0;                                          ///< of handshakes_ok
    std::array<std::uint64_t, kHandshakeFailures> handshakes_failed{};  ///< by HandshakeFailure
    std::uint64_t handed_to_kernel = 0;                                 ///< of handshakes_ok
    std::uint64_t fallback = 0;     ///< wanted in the kernel and carried by OpenSSL instead
    std::uint64_t rekeyed = 0;      ///< KeyUpdates of peers that were followed in the kernel
    std::uint64_t key_updates = 0;  ///< kernel connections closed because the peer changed its keys (RFC 8446 §4.6.3)
    std::uint64_t renegotiations_refused = 0;
    std::uint64_t decrypt_errors = 0;   ///< records that failed authentication
    std::uint64_t bad_records = 0;      ///< oversized, of a wrong version, or of a type that has no place here
    std::uint64_t alerts_received = 0;  ///< fatal ones
    std::uint64_t truncated = 0;        ///< TCP ended without close_notify
    std::uint64_t record_limit = 0;     ///< closed at the AEAD's usage limit (RFC 8446 §5.5)
};

/// Owns one file descriptor.
class OwnedFd {
public:
    OwnedFd() = default;
    explicit OwnedFd(int fd) : fd_(fd) {}
    OwnedFd(OwnedFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    OwnedFd& operator=(OwnedFd&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    OwnedFd(const OwnedFd&) = delete;
    ~OwnedFd();
    int get() const { return fd_; }
    bool is_open() const { return fd_ >= 0; }
    int release() { return std::exchange(fd_, -1); }

private:
    int fd_ = -1;
};

}  // namespace gmgate::ktls
