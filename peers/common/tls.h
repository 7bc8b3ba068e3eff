// TLS of the two peers: OpenSSL keeps the session and its own socket calls, no kernel TLS. Nothing is shared with the
// gateway.
#pragma once

#include "error.h"

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

struct ssl_st;  // SSL and SSL_CTX of OpenSSL
struct ssl_ctx_st;

namespace gmgate::peers {

enum class TlsVersion { any, v1_2, v1_3 };

/// A PEM file with a certificate and its chain, and its private key.
struct TlsIdentity {
    std::string certificate;
    std::string key;
};

struct TlsClientOptions {
    TlsVersion version = TlsVersion::any;
    std::string ca_file;  ///< PEM; empty: the server's certificate is not checked
    std::string name;     ///< for SNI and, with ca_file, what the certificate must be for; empty: neither
    TlsIdentity own{};    ///< shown when the server asks; empty: none
};

struct TlsServerOptions {
    TlsIdentity own;
    std::string client_ca_file;  ///< demand a certificate that one of this PEM file signed; empty: none is asked for
};

/// What the connections of one kind have in common. Also makes the process ignore SIGPIPE: OpenSSL writes with
/// write(2).
class TlsContext {
public:
    [[nodiscard]] static Result<std::shared_ptr<const TlsContext>> client(
        TlsClientOptions options);  // shared by all phones of the process
    [[nodiscard]] static Result<std::shared_ptr<const TlsContext>> server(const TlsServerOptions& options);
    ~TlsContext();
    TlsContext(const TlsContext&) = delete;
    TlsContext& operator=(const TlsContext&) = delete;

private:
    friend class TlsSession;
    TlsContext() = default;
    ssl_ctx_st* context_ = nullptr;
    bool is_server_ = false;
    std::string name_;
};

enum class TlsStep { done, want_read, want_write, closed, failed };

/// TLS on one non-blocking socket, which must outlive it.
class TlsSession {
public:
    TlsSession(std::shared_ptr<const TlsContext> context, int fd);
    ~TlsSession();
    TlsSession(const TlsSession&) = delete;
    TlsSession& operator=(const TlsSession&) = delete;

    [[nodiscard]] TlsStep handshake();
    [[nodiscard]] TlsStep read(std::span<char> buffer, std::size_t& got);
    [[nodiscard]] TlsStep write(std::string_view bytes, std::size_t& sent);
    /// close_notify, if there is room for it.
    void shut_down();
    /// Why the last step failed.
    [[nodiscard]] const std::string& why() const { return why_; }
    /// "TLSv1.3 TLS_AES_256_GCM_SHA384", empty before the handshake is done.
    [[nodiscard]] std::string protection() const;

private:
    [[nodiscard]] TlsStep outcome(int result);
    std::shared_ptr<const TlsContext> context_;
    ssl_st* ssl_ = nullptr;
    bool usable_ = true;  ///< no fatal error: close_notify makes sense
    std::string why_;
};

}  // namespace gmgate::peers
