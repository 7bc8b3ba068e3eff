// TLS ports: accepts connections, lets ktls/ do the handshake, and hands the stream to sip/.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <asio/any_io_executor.hpp>

#include "base/error.h"
#include "base/task.h"
#include "daemon/config/config.h"
#include "daemon/observe/counters.h"
#include "daemon/tls/engine.h"
#include "daemon/tls/handshakes.h"
#include "ktls/context.h"
#include "sip/transport/transport.h"

namespace gmgate::daemon {

class TlsListeners {
public:
    TlsListeners(asio::any_io_executor executor, const Config& config, TlsEngine& engine, sip::Transports& transports,
                 Counters& counters);
    ~TlsListeners();

    /// Whether somebody is or was registered from there: strangers' handshakes give way first. Default: nobody.
    void set_known(std::function<bool(const Address&)> is_known) { is_known_ = std::move(is_known); }
    /// Who may come to the port towards the core. Default: everybody.
    void set_core_door(std::function<bool(const Endpoint& remote, const Endpoint& local)> admits) {
        core_admits_ = std::move(admits);
    }

    /// Loads the certificates, tries the kernel, opens every TLS port, that towards the core included. A port of phones
    /// whose certificate is not good stays closed, loudly: the others, and ipsec-3gpp, are served. Errors, of the rest,
    /// name the file or port, the reason and the fix.
    Result<void> open();
    /// Tries those ports again, after a reload. The Error names each that is still closed.
    Result<void> open_missing();
    void close();

    // ---- from process to process
    /// A listening socket of the process before, for open().
    void inherit(sip::FileDescriptor socket) { inherited_.push_back(std::move(socket)); }
    std::vector<sip::FileDescriptor> take_unused() { return std::exchange(inherited_, {}); }
    void for_each_socket(const std::function<void(const Endpoint&, int)>& f) const;
    /// A connection of the process before whose TLS is in the kernel, back under its old id.
    Result<sip::Flow> resume(sip::FileDescriptor socket, sip::ConnectionId id, const ktls::SessionInfo& info);
    /// Of the connection that is being given to the transports at this moment (Transports::on_opened).
    const ktls::SessionInfo& session_info() const { return session_info_; }

private:
    struct Port;
    using SharedContext = std::shared_ptr<const ktls::Context>;  // shared with TlsCertificates, which reloads it
    Result<SharedContext> access_context(const TlsProfile& profile);
    Result<SharedContext> core_context(const TlsProfile& profile);
    Result<void> open_access_port(const Endpoint& local, const TlsProfile& profile);
    Result<void> open_port(const Endpoint& local, SharedContext context);
    Task<void> serve(std::shared_ptr<Port> port);
    Task<void> welcome(std::shared_ptr<Port> port, ktls::OwnedFd socket, Endpoint remote, Handshakes::Place place);
    bool may_come(const Port& port, const Endpoint& remote) const;
    std::optional<Handshakes::Place> admit(const Address& remote, int socket);
    void end_handshake(int socket);
    bool may_log();

    int take_inherited(const Endpoint& local);

    asio::any_io_executor executor_;
    const Config& config_;
    TlsEngine& engine_;
    sip::Transports& transports_;
    Counters& counters_;
    std::map<std::string, SharedContext> access_contexts_;
    std::vector<std::shared_ptr<Port>> ports_;       // shared with their accept loops
    std::map<Endpoint, const TlsProfile*> missing_;  ///< not open: their certificates are not good
    std::shared_ptr<Handshakes> handshakes_;         // shared with handshakes that end after it
    std::function<bool(const Address&)> is_known_;
    std::function<bool(const Endpoint&, const Endpoint&)> core_admits_;
    std::chrono::seconds log_second_{};
    unsigned lines_ = 0;
    std::vector<sip::FileDescriptor> inherited_;
    ktls::SessionInfo session_info_;
    std::shared_ptr<ktls::Counters> resumed_counters_ =
        std::make_shared<ktls::Counters>();  // of connections whose handshake another process did
};

}  // namespace gmgate::daemon
