// TLS connections that the gateway opens, towards the core: the server must be who it should be (RFC 5922), then the
// kernel carries it.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <asio/any_io_executor.hpp>

#include "base/error.h"
#include "base/task.h"
#include "daemon/config/config.h"
#include "daemon/tls/engine.h"
#include "sip/transport/transport.h"

namespace gmgate::daemon {

/// Whom to trust at the other end of a TLS connection of ours, and what to show when asked.
struct TlsPeer {
    std::string ca_file;             ///< PEM; empty: the system's
    std::vector<std::string> names;  ///< SIP domains of certificates, and SNI; the first is for who has none of his own
    std::vector<ktls::CertificateFiles> own_certificates;
    std::chrono::days warn_ahead{30};  ///< of the end of our own
};

class TlsConnector {
public:
    TlsConnector(asio::any_io_executor executor, TlsEngine& engine, sip::Transports& transports)
        : executor_(std::move(executor)), engine_(engine), transports_(transports) {}

    /// Loads the files, which the engine's certificates() then keep up to date. Errors name the file, the reason and
    /// the fix.
    Result<void> open(const TlsPeer& peer);

    /// A new connection from exactly `local` (port 0: any) to `remote`, handshake done and the certificate verified to
    /// be for `name`, one of the names given to open() (empty: the first); `timeout` is for each of TCP and TLS. Errors
    /// are Reaction::broken with the reason, which is logged.
    Task<Result<sip::Flow>> connect(Endpoint local, Endpoint remote, std::string name,
                                    std::chrono::milliseconds timeout);

private:
    Task<Result<sip::Flow>> establish(Endpoint local, Endpoint remote, std::string name,
                                      std::chrono::milliseconds timeout);

    asio::any_io_executor executor_;
    TlsEngine& engine_;
    sip::Transports& transports_;
    std::string default_name_;
    std::map<std::string, std::shared_ptr<const ktls::Context>>
        contexts_;  ///< by name; shared with the engine's certificates(); empty before open()
};

}  // namespace gmgate::daemon
