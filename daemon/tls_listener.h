// TLS ports: accepts connections, lets ktls/ do the handshake, and hands the stream to sip/.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <asio/any_io_executor.hpp>

#include "base/error.h"
#include "base/task.h"
#include "daemon/config.h"
#include "daemon/operate/counters.h"
#include "daemon/tls_engine.h"
#include "ktls/context.h"
#include "sip/transport.h"

namespace gmgate::daemon {

class TlsListeners {
public:
    TlsListeners(asio::any_io_executor executor, const Config& config, TlsEngine& engine, sip::Transports& transports, Counters& counters);
    ~TlsListeners();

    /// Loads the certificates, tries the kernel, opens every TLS port, that towards the core included. Errors name the file or port, the
    /// reason and the fix.
    Result<void> open();
    void close();

private:
    struct Port;
    using SharedContext = std::shared_ptr<const ktls::Context>;  // shared with TlsCertificates, which reloads it
    Result<SharedContext> access_context(const TlsProfile& profile);
    Result<SharedContext> core_context(const TlsProfile& profile);
    Result<void> open_port(const Endpoint& local, SharedContext context);
    Task<void> serve(std::shared_ptr<Port> port);
    Task<void> welcome(std::shared_ptr<Port> port, ktls::OwnedFd socket, Endpoint remote);
    bool admit(const Address& remote);
    bool may_log();

    asio::any_io_executor executor_;
    const Config& config_;
    TlsEngine& engine_;
    sip::Transports& transports_;
    Counters& counters_;
    std::map<std::string, SharedContext> access_contexts_;
    std::vector<std::shared_ptr<Port>> ports_;  // shared with their accept loops
    std::size_t in_progress_ = 0;               ///< handshakes
    std::map<Address, std::size_t> under_way_;  ///< the same by address; never more entries than handshakes
    std::chrono::seconds log_second_{};
    unsigned lines_ = 0;
};

}  // namespace gmgate::daemon
