// TLS ports: accepts connections, lets ktls/ do the handshake, and hands the stream to sip/. The only place that knows both.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <asio/any_io_executor.hpp>

#include "base/error.h"
#include "base/task.h"
#include "daemon/config.h"
#include "ktls/context.h"
#include "ktls/handshake.h"
#include "sip/transport.h"

namespace gmgate::daemon {

class TlsListeners {
public:
    TlsListeners(asio::any_io_executor executor, const Config& config, sip::Transports& transports);
    ~TlsListeners();

    /// Loads the certificates, tries the kernel, opens every TLS port. Errors name the file or port, the reason and the fix.
    Result<void> open();
    void close();
    /// "in the kernel" or why not; empty when no TLS port is configured.
    std::string kernel_words() const;
    /// Null when no TLS port is configured.
    const ktls::Counters* counters() const;

private:
    struct Port;
    Result<void> open_port(const SipPort& port);
    Task<void> serve(std::shared_ptr<Port> port);
    Task<void> welcome(std::shared_ptr<Port> port, ktls::OwnedFd socket, Endpoint remote);

    asio::any_io_executor executor_;
    const Config& config_;
    sip::Transports& transports_;
    std::unique_ptr<ktls::Handshaker> handshaker_;
    std::vector<std::shared_ptr<Port>> ports_;  // shared with their accept loops
};

}  // namespace gmgate::daemon
