// From process to process without loss: takes what the one before left, keeps account of what the next one may have,
// and hands it over, through systemd's fd store or directly. The README of this folder tells the ways.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include <asio/any_io_executor.hpp>
#include <asio/steady_timer.hpp>

#include "daemon/config/access.h"
#include "daemon/nat/encap_sockets.h"
#include "daemon/registrations/keeper.h"
#include "daemon/registrations/store.h"
#include "daemon/registrations/table.h"
#include "daemon/restart/inheritance.h"
#include "daemon/restart/ledger.h"
#include "daemon/restart/service_manager.h"
#include "daemon/restart/take_over.h"
#include "daemon/tls/listener.h"

namespace gmgate::daemon {

struct HandoverParts {
    const Config& config;
    const AccessMap& accesses;
    Table& table;
    Store& store;
    Keeper& keeper;
    sip::Transports& transports;
    TlsListeners& tls;
    Counters& counters;
    EncapSockets& encap;
};

/// In the order of a start: receive, before the sockets open; resume, once they are open; settle, once the
/// registrations are adopted; serve. Then opened() and closed() for each connection, and leave() at the end.
class Handover {
public:
    Handover(asio::any_io_executor executor, HandoverParts parts);

    /// Gets what the process before left: from the running one (`take_over`, which stands still from now on) or from
    /// systemd. Errors: nobody to take over from; the ledger.
    Result<void> receive(bool take_over);
    /// The store's lock, when it was handed over; -1 otherwise. The caller owns it.
    int take_lock() { return inheritance_.lock.release(); }
    /// Connections that are in step go on under their old ids; the others are closed. None is read before the loop's
    /// next turn.
    void resume();
    /// The open connection with that id that came from the process before.
    std::optional<sip::Flow> flow_of(sip::ConnectionId connection) const;
    /// Connections that no registration needs are closed.
    void settle();
    /// This process waits for its turn, which may take days: systemd is told that it is ready for that.
    void stand_by();
    /// Everything stands: systemd is told, the process before leaves, and the next one may ask. `left` is called when
    /// it serves.
    Result<void> serve(std::function<void()> left);
    void closed(const sip::Flow& flow);
    /// The end of this process: what another one may go on with is left as it is. False: nobody would, so the caller
    /// closes as usual.
    bool leave();

private:
    StepMark opened(const sip::Flow& flow, int descriptor);
    std::optional<sip::Flow> resume_one(sip::ConnectionId id, sip::FileDescriptor socket);
    std::vector<HandedOver> holdings();
    void keep_alive(std::chrono::microseconds interval);

    asio::any_io_executor executor_;
    HandoverParts p_;
    std::optional<Ledger> ledger_;
    std::optional<TakeOver> taken_;
    Inheritance inheritance_;
    std::unordered_map<sip::ConnectionId, sip::Flow> resumed_;
    std::unordered_map<sip::ConnectionId, int> descriptors_;  ///< of connections in the ledger; the transports own them
    std::unique_ptr<TakeOverServer> server_;
    asio::steady_timer watchdog_;
    ServiceManager service_;
};

}  // namespace gmgate::daemon
