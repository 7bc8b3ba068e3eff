#include "ktls/session.h"

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "ktls/sip_domain.h"

namespace gmgate::ktls {
namespace {

HandshakeFailure classify(int reason) {
    switch (reason) {
        case SSL_R_HTTP_REQUEST:
        case SSL_R_HTTPS_PROXY_REQUEST:
        case SSL_R_WRONG_VERSION_NUMBER:
        case SSL_R_BAD_RECORD_TYPE:
        case SSL_R_UNKNOWN_PROTOCOL:
            return HandshakeFailure::not_tls;
        case SSL_R_UNSUPPORTED_PROTOCOL:
        case SSL_R_VERSION_TOO_LOW:
        case SSL_R_INAPPROPRIATE_FALLBACK:
        case SSL_R_NO_PROTOCOLS_AVAILABLE:
            return HandshakeFailure::no_common_version;
        case SSL_R_NO_SHARED_CIPHER:
        case SSL_R_NO_SUITABLE_KEY_SHARE:
        case SSL_R_NO_SUITABLE_GROUPS:
        case SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM:
        case SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS:
            return HandshakeFailure::no_common_cipher;
        case SSL_R_UNEXPECTED_EOF_WHILE_READING:
            return HandshakeFailure::peer_closed;
        case SSL_R_CERTIFICATE_VERIFY_FAILED:
            return HandshakeFailure::certificate;
        case SSL_R_CALLBACK_FAILED:
            return HandshakeFailure::unknown_name;  // the only callback of ours that refuses
        default:
            break;
    }
    return reason >= SSL_AD_REASON_OFFSET && reason < SSL_AD_REASON_OFFSET + 256 ? HandshakeFailure::peer_alert
                                                                                 : HandshakeFailure::bad_message;
}

}  // namespace

Result<std::unique_ptr<Session>> Session::make(std::shared_ptr<const Context::State> state, int fd, Role role,
                                               bool kernel) {
    ERR_clear_error();
    auto session = std::make_unique<Session>();
    session->state_ = std::move(state);
    session->kept_.role = role;
    session->ssl_.reset(SSL_new(session->state_->identities.front().context.get()));
    SSL* const ssl = session->ssl_.get();
    bool ready = ssl != nullptr;
    if (ready && kernel) {
        SSL_set_options(ssl, SSL_OP_ENABLE_KTLS);
        SSL_set_app_data(ssl, &session->kept_);
        ready = SSL_set_fd(ssl, fd) == 1;  // BIO_NOCLOSE; asks the socket for the ULP as well
    } else if (ready) {
        BIO* const bio = BIO_new_socket(fd, BIO_NOCLOSE);  // SSL_set_fd would set the ULP even where nobody wants it
        ready = bio != nullptr;
        if (ready) SSL_set_bio(ssl, bio, bio);
    }
    const auto& names = session->state_->peer_names;
    if (ready && role == Role::client && !names.empty())
        ready = SSL_set_tlsext_host_name(ssl, names.front().c_str()) == 1;
    if (!ready) return failure(Reaction::exhausted, "OpenSSL makes no connection: " + take_openssl_error());
    if (role == Role::server) SSL_set_accept_state(ssl);
    else SSL_set_connect_state(ssl);
    return session;
}

void Session::explain() {
    const auto code = ERR_peek_error();
    if (code != 0) {
        reason_ = classify(ERR_GET_REASON(code));
        decrypt_failed_ = ERR_GET_REASON(code) == SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC;
        const long verified = SSL_get_verify_result(ssl_.get());
        text_ = take_openssl_error();
        if (reason_ == HandshakeFailure::certificate && verified != X509_V_OK)
            text_ = X509_verify_cert_error_string(verified);
    }
}

Progress Session::judge(int result) {
    const int saved = errno;
    switch (SSL_get_error(ssl_.get(), result)) {
        case SSL_ERROR_NONE:
            return Progress::done;
        case SSL_ERROR_WANT_READ:
            return Progress::want_read;
        case SSL_ERROR_WANT_WRITE:
            return Progress::want_write;
        case SSL_ERROR_ZERO_RETURN:
            return Progress::ended;
        case SSL_ERROR_SYSCALL:
            reason_ = HandshakeFailure::peer_closed;
            text_ = saved == 0 ? "the peer ended the connection" : std::strerror(saved);
            ERR_clear_error();
            return Progress::failed;
        default:
            break;
    }
    truncated_ = ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING;
    explain();
    return Progress::failed;
}

Progress Session::handshake() {
    ERR_clear_error();
    errno = 0;
    const auto progress = judge(SSL_do_handshake(ssl_.get()));
    return progress == Progress::done && !peer_is_right() ? Progress::failed : progress;
}

// After the handshake and before anything is sent: OpenSSL has verified the chain; whose certificate it is are SIP's
// rules.
bool Session::peer_is_right() {
    const auto& wanted = state_->peer_names;
    if (!state_->verify || wanted.empty()) return true;
    const X509* const certificate = SSL_get0_peer_certificate(ssl_.get());
    if (certificate != nullptr &&
        std::ranges::any_of(wanted, [&](const std::string& name) { return is_for_domain(certificate, name); }))
        return true;
    reason_ = HandshakeFailure::certificate;
    text_ = "the peer's certificate is not for";
    for (const auto& name : wanted) text_ += (&name == &wanted.front() ? " " : " or ") + name;
    text_ += " (RFC 5922) but for";
    if (certificate != nullptr)
        for (const auto& name : sip_domains(certificate)) text_ += " " + name;
    return false;
}

Progress Session::read(char* to, std::size_t size, std::size_t& count) {
    ERR_clear_error();
    errno = 0;
    count = 0;
    const auto progress = judge(SSL_read_ex(ssl_.get(), to, size, &count));
    return progress == Progress::failed && truncated_ ? Progress::ended : progress;
}

Progress Session::write(std::string_view bytes, std::size_t& count) {
    ERR_clear_error();
    errno = 0;
    count = 0;
    return judge(SSL_write_ex(ssl_.get(), bytes.data(), bytes.size(), &count));
}

void Session::shut_down() {
    ERR_clear_error();
    if (SSL_is_init_finished(ssl_.get())) SSL_shutdown(ssl_.get());
    ERR_clear_error();
}

void Session::retire() {
    SSL_set_quiet_shutdown(ssl_.get(), 1);
    SSL_shutdown(ssl_.get());
    ERR_clear_error();
}

bool Session::has_pending() const { return SSL_has_pending(ssl_.get()) == 1; }

SessionInfo Session::info() const {
    SessionInfo info;
    info.version = SSL_version(ssl_.get()) == TLS1_2_VERSION ? Version::tls12 : Version::tls13;
    switch (SSL_CIPHER_get_cipher_nid(SSL_get_current_cipher(ssl_.get()))) {
        case NID_aes_128_gcm:
            info.cipher = Cipher::aes_128_gcm;
            break;
        case NID_aes_256_gcm:
            info.cipher = Cipher::aes_256_gcm;
            break;
        default:
            info.cipher = Cipher::chacha20_poly1305;
            break;  // make_context() allows these three
    }
    info.role = kept_.role;
    info.resumed = SSL_session_reused(ssl_.get()) == 1;
    return info;
}

std::string Session::suite() const { return SSL_get_cipher_name(ssl_.get()); }

std::string Session::server_name() const {
    const char* name = SSL_get_servername(ssl_.get(), TLSEXT_NAMETYPE_host_name);
    return name == nullptr ? "" : name;
}

}  // namespace gmgate::ktls
