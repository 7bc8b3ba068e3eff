#include "tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>

#include <cerrno>
#include <csignal>
#include <cstring>

namespace gmgate::peers {
namespace {

std::string last_error() {
    char text[256] = "unknown TLS error";
    if (const unsigned long code = ERR_peek_last_error(); code != 0) ERR_error_string_n(code, text, sizeof text);
    ERR_clear_error();
    return text;
}

void set_version(SSL_CTX* ctx, TlsVersion version) {
    SSL_CTX_set_min_proto_version(ctx, version == TlsVersion::v1_3 ? TLS1_3_VERSION : TLS1_2_VERSION);
    SSL_CTX_set_max_proto_version(ctx, version == TlsVersion::v1_2 ? TLS1_2_VERSION : TLS1_3_VERSION);
}

Result<void> use(SSL_CTX* ctx, const TlsIdentity& own) {
    if (SSL_CTX_use_certificate_chain_file(ctx, own.certificate.c_str()) != 1)
        return fail("certificate {}: {}", own.certificate, last_error());
    if (SSL_CTX_use_PrivateKey_file(ctx, own.key.c_str(), SSL_FILETYPE_PEM) != 1)
        return fail("key {}: {}", own.key, last_error());
    return {};
}

Result<void> trust(SSL_CTX* ctx, const std::string& ca_file, int mode) {
    if (SSL_CTX_load_verify_locations(ctx, ca_file.c_str(), nullptr) != 1)
        return fail("CA file {}: {}", ca_file, last_error());
    SSL_CTX_set_verify(ctx, mode, nullptr);
    return {};
}

}  // namespace

TlsContext::~TlsContext() { SSL_CTX_free(context_); }

Result<std::shared_ptr<const TlsContext>> TlsContext::client(TlsClientOptions options) {
    std::signal(SIGPIPE, SIG_IGN);
    std::shared_ptr<TlsContext> out(new TlsContext);
    SSL_CTX* ctx = SSL_CTX_new(TLS_client_method());
    if (!ctx) return fail("TLS: {}", last_error());
    out->context_ = ctx;
    set_version(ctx, options.version);
    // Thousands of phones live in one process: no buffers for a connection that is idle.
    SSL_CTX_set_mode(ctx,
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    if (!options.ca_file.empty())
        if (auto ok = trust(ctx, options.ca_file, SSL_VERIFY_PEER); !ok) return std::unexpected(ok.error());
    if (!options.own.certificate.empty())
        if (auto ok = use(ctx, options.own); !ok) return std::unexpected(ok.error());
    out->name_ = std::move(options.name);
    return out;
}

Result<std::shared_ptr<const TlsContext>> TlsContext::server(const TlsServerOptions& options) {
    std::signal(SIGPIPE, SIG_IGN);
    std::shared_ptr<TlsContext> out(new TlsContext);
    SSL_CTX* ctx = SSL_CTX_new(TLS_server_method());
    if (!ctx) return fail("TLS: {}", last_error());
    out->context_ = ctx;
    out->is_server_ = true;
    set_version(ctx, TlsVersion::any);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (auto ok = use(ctx, options.own); !ok) return std::unexpected(ok.error());
    if (!options.client_ca_file.empty())
        if (auto ok = trust(ctx, options.client_ca_file, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT); !ok)
            return std::unexpected(ok.error());
    SSL_CTX_set_session_id_context(ctx, reinterpret_cast<const unsigned char*>("peers"), 5);
    return out;
}

TlsSession::TlsSession(std::shared_ptr<const TlsContext> context, int fd) : context_(std::move(context)) {
    ssl_ = SSL_new(context_->context_);
    SSL_set_fd(ssl_, fd);
    if (context_->is_server_) SSL_set_accept_state(ssl_);
    else SSL_set_connect_state(ssl_);
    if (context_->is_server_ || context_->name_.empty()) return;
    SSL_set_tlsext_host_name(ssl_, context_->name_.c_str());
    SSL_set1_host(ssl_, context_->name_.c_str());
}

TlsSession::~TlsSession() { SSL_free(ssl_); }

TlsStep TlsSession::outcome(int result) {
    if (result > 0) return TlsStep::done;
    const int saved = errno;
    switch (SSL_get_error(ssl_, result)) {
        case SSL_ERROR_WANT_READ:
            return TlsStep::want_read;
        case SSL_ERROR_WANT_WRITE:
            return TlsStep::want_write;
        case SSL_ERROR_ZERO_RETURN:
            return TlsStep::closed;
        case SSL_ERROR_SYSCALL:
            why_ = saved != 0 ? std::strerror(saved) : "closed without close_notify";
            break;
        default: {
            const long verified = SSL_get_verify_result(ssl_);
            why_ = last_error();
            if (verified != X509_V_OK) why_ += fmt::format(" ({})", X509_verify_cert_error_string(verified));
        }
    }
    ERR_clear_error();
    usable_ = false;
    return TlsStep::failed;
}

TlsStep TlsSession::handshake() {
    ERR_clear_error();
    errno = 0;
    return outcome(SSL_do_handshake(ssl_));
}

TlsStep TlsSession::read(std::span<char> buffer, std::size_t& got) {
    ERR_clear_error();
    errno = 0;
    got = 0;
    return outcome(SSL_read_ex(ssl_, buffer.data(), buffer.size(), &got));
}

TlsStep TlsSession::write(std::string_view bytes, std::size_t& sent) {
    ERR_clear_error();
    errno = 0;
    sent = 0;
    return outcome(SSL_write_ex(ssl_, bytes.data(), bytes.size(), &sent));
}

void TlsSession::shut_down() {
    if (usable_ && SSL_is_init_finished(ssl_)) SSL_shutdown(ssl_);
    ERR_clear_error();
}

std::string TlsSession::protection() const {
    if (!SSL_is_init_finished(ssl_)) return {};
    return fmt::format("{} {}", SSL_get_version(ssl_), SSL_get_cipher_name(ssl_));
}

}  // namespace gmgate::peers
