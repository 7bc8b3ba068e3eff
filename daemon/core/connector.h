// TCP and TLS connections opened on demand, one attempt at a time for each pair of ends: whoever asks meanwhile waits
// for the same outcome. (A second connect between the same two protected ports would fail with EADDRNOTAVAIL.)
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include <asio/steady_timer.hpp>

#include "base/clock.h"
#include "base/task.h"
#include "daemon/core/silent_peers.h"
#include "sip/transport/transport.h"

namespace gmgate::daemon {

class TlsConnector;

class Connector {
public:
    explicit Connector(sip::Transports& transports) : transports_(transports) {}
    /// How TLS connections are opened; none can be before.
    void use_tls(TlsConnector& tls) { tls_ = &tls; }

    /// A new connection from exactly `local` (port 0: any) to `remote`, kept open while idle. `tls_name`: see
    /// TlsConnector::connect. Who gives another `lane` gets a connection of its own. Who did not answer
    /// lately is not asked again at once: broken with ETIMEDOUT, without waiting. Errors: Reaction::exhausted, a limit
    /// of ours; broken, everything else.
    Task<Result<sip::Flow>> connect(Endpoint local, Endpoint remote, sip::Transport transport = sip::Transport::tcp,
                                    std::string tls_name = {}, unsigned lane = 0);
    /// The same, shared with nobody.
    Task<Result<sip::Flow>> connect_alone(Endpoint local, Endpoint remote, sip::Transport transport,
                                          std::string tls_name);

private:
    Task<Result<sip::Flow>> open(Endpoint local, Endpoint remote, sip::Transport transport, std::string tls_name);
    struct Attempt {
        explicit Attempt(const asio::any_io_executor& executor)
            : done(executor, asio::steady_timer::time_point::max()) {}
        asio::steady_timer done;  ///< never expires; cancelled when the attempt has ended
        std::optional<Result<sip::Flow>> outcome;
    };

    sip::Transports& transports_;
    TlsConnector* tls_ = nullptr;
    Clock clock_;
    SilentPeers silent_{clock_};
    std::map<std::tuple<Endpoint, Endpoint, std::string, unsigned>, std::shared_ptr<Attempt>>
        attempts_;  ///< shared by the waiting coroutines
};

}  // namespace gmgate::daemon
