// What TLS ports and TLS connections to the core share: the handshaker, the certificates in use, the fit of a TLS
// connection to a byte stream.
#pragma once

#include <memory>
#include <string>

#include <asio/any_io_executor.hpp>

#include "base/error.h"
#include "daemon/config/config.h"
#include "daemon/tls/certificates.h"
#include "ktls/context.h"
#include "ktls/handshake.h"
#include "sip/transport/transport.h"

namespace gmgate::daemon {

class TlsEngine {
public:
    TlsEngine(asio::any_io_executor executor, const Config& config)
        : executor_(std::move(executor)), config_(config), certificates_(executor_) {}

    /// Tries the kernel the first time. With `ktls = "required"` and a kernel that cannot: Reaction::refused with the
    /// fix.
    Result<ktls::Handshaker*> handshaker();
    /// "in the kernel" or why not; empty when nothing uses TLS.
    std::string kernel_words() const;
    /// Null when nothing uses TLS.
    const ktls::Counters* counters() const;
    TlsCertificates& certificates() { return certificates_; }
    std::size_t handshakes_under_way() const { return handshaker_ ? handshaker_->in_progress() : 0; }

private:
    asio::any_io_executor executor_;
    const Config& config_;
    TlsCertificates certificates_;
    std::unique_ptr<ktls::Handshaker> handshaker_;
};

/// The certificates of a [[tls-profile]].
std::vector<ktls::CertificateFiles> certificate_files(const TlsProfile& profile);
/// A TLS connection as the SIP layer sees it.
std::unique_ptr<sip::ByteStream> as_byte_stream(std::unique_ptr<ktls::Connection> connection);

}  // namespace gmgate::daemon
