// The composition: builds every part in reading order, fits them together, and sends each message on its way.
#pragma once

#include <memory>

#include <asio/io_context.hpp>

#include "daemon/agreement/register_flow.h"
#include "daemon/cluster/follower.h"
#include "daemon/config/access.h"
#include "daemon/config/config.h"
#include "daemon/core/core_door.h"
#include "daemon/core/core_link.h"
#include "daemon/nat/encap_sockets.h"
#include "daemon/observe/recorder.h"
#include "daemon/operate/hep.h"
#include "daemon/operate/http_responder.h"
#include "daemon/operate/operations.h"
#include "daemon/overload.h"
#include "daemon/privilege/privileges.h"
#include "daemon/proxy/router.h"
#include "daemon/reg_event/reg_event.h"
#include "daemon/registrations/adopt.h"
#include "daemon/registrations/expiry.h"
#include "daemon/registrations/keeper.h"
#include "daemon/registrations/kernel_watch.h"
#include "daemon/registrations/sa_sets.h"
#include "daemon/registrations/store.h"
#include "daemon/registrations/table.h"
#include "daemon/restart/handover.h"
#include "daemon/tls/connector.h"
#include "daemon/tls/engine.h"
#include "daemon/tls/listener.h"
#include "sip/transaction/transactions.h"
#include "sip/transport/transport.h"
#include "xfrm/kernel.h"
#include "xfrm/sealing.h"

namespace gmgate::daemon {

class Cluster;
class HeldSockets;
struct ClusterConfig;

/// One running gateway on one loop. The configuration and the kernel outlive it.
class Gateway {
public:
    Gateway(asio::io_context& loop, const Config& config, xfrm::Kernel& kernel, const Clock& clock,
            const ClusterConfig* cluster = nullptr);

    /// Probes the kernel, installs the guard policies, matches the store with the kernel's SAs (adopts or removes), and
    /// only then opens the sockets (B-13). Every failure is an Error with the reason and the fix. `take_over`: from the
    /// running gmgated, with its sockets and connections. `left` is called when another one has taken over from us: the
    /// loop is to end, without stop().
    Task<Result<void>> start(bool take_over, std::function<void()> left);
    /// start() waits until the addresses are this node's, and takes up what the node before had. `on_lost`: it is
    /// another's turn, and this process is to end. Before start(); all outlive the gateway.
    void join(const ClusterConfig& cluster, xfrm::Sealing& sealing, std::function<void()> on_lost);
    /// What was opened while the process still had capabilities; before start().
    void use(Prepared prepared);
    /// What the kernel's events tell, for whoever it concerns.
    void kernel_event(const xfrm::KernelEvent& event);
    /// Closes the sockets. SAs and guards stay in the kernel: cleartext on protected ports is dropped without us, too.
    void stop();
    /// SIGHUP: reads certificates and keys again, opens TLS ports that had none which were good, and logs what came of
    /// it. The Error says what is wrong with which file.
    Result<void> reload_certificates();

    /// After a reload has changed the configuration in place: new next hops are known, and the kernel is asked for
    /// algorithms that were not allowed before (what it lacks is logged).
    void configuration_changed();

    /// What the kernel's event sockets tell (xfrm::Monitor, xfrm::AddressWatch).
    KernelWatch& kernel_watch() { return kernel_watch_; }
    std::vector<Address> access_addresses() const;

    /// The control socket and what stands behind it.
    Operations& operations() { return operations_; }

    const Counters& counters() const { return counters_; }
    const Table& table() const { return table_; }
    const Trace& trace() const { return trace_; }

private:
    Task<Result<void>> check_kernel();
    Task<void> check_kernel_again();
    Task<Result<void>> install_guards();
    Task<Result<void>> take_up();
    Task<Result<void>> stand_by(bool take_over);
    Task<Result<void>> clear_kernel();
    void take_challenges();
    void hold_sockets(bool accepts);
    void take_held_sockets();
    Task<Result<void>> collect(Adoption& adoption);
    void keep_dialogs();
    Task<void> share_dialogs();
    Result<void> open_sockets();
    Result<void> open_core_side();
    void tell_what_phones_get() const;

    Result<void> open_monitoring();
    Result<void> open_hep();
    Result<HepSender::Connect> hep_connect(const HepSettings& settings);
    MessageTrace::Context context_of(bool outward, const sip::Flow& flow);
    void see(bool outward, const sip::Flow& flow, std::string_view bytes);
    bool screen(const sip::Message& message, const sip::Flow& flow);
    bool may_leave(const sip::Flow& flow);
    sip::Door door_of(const sip::Flow& flow, sip::Direction direction);
    bool is_known(const sip::Flow& flow);
    sip::Standing standing_of(const sip::Flow& flow);
    void remember_address(const ContactKey& key);
    sip::MessageLimit message_limit(const sip::Flow& flow);
    bool is_urgent(const sip::Message& request) const;
    bool must_shed(const sip::Message& request, const sip::Flow& flow);
    std::optional<sip::Flow> way_back(const sip::Flow& flow);
    std::string tell_overload(std::string response, const sip::Flow& way);
    void connection_ended(const sip::Flow& flow);
    void dispatch(std::shared_ptr<sip::ServerTransaction> transaction);

    asio::io_context& loop_;
    const Config& config_;
    xfrm::Kernel& kernel_;
    const Clock& clock_;
    Counters counters_;
    OperatorState operating_;
    Trace trace_;
    LoopWatch loop_watch_;
    AccessMap accesses_;
    Table table_;
    KnownAddresses known_addresses_;
    AuthenticationBudget budget_;
    xfrm::SpiPool spis_;
    sip::Transports transports_;
    sip::Transactions transactions_;
    CoreLink core_;
    CoreDoor core_door_;
    Store store_;
    Keeper keeper_;
    SaSets sets_;
    Expiry expiry_;
    KernelWatch kernel_watch_;
    TlsAgreements tls_agreements_;
    RegisterFlow register_flow_;
    Router router_;
    RegEvents reg_events_;
    TlsEngine tls_engine_;
    TlsConnector tls_connector_;
    TlsListeners tls_;
    EncapSockets encap_;
    Handover handover_;
    std::shared_ptr<Cluster> cluster_;                     ///< null: this is the only gateway
    std::shared_ptr<HeldSockets> held_;                    ///< while it stands by
    std::vector<sip::FileDescriptor> prepared_udp_;        ///< until it is known who opens them
    std::vector<TakenRecords::Waiting> taken_challenges_;  ///< until they are in the table
    bool comes_after_another_ = false;                     ///< what it serves was another node's
    PacketTap tap_;
    MessageTrace messages_;
    FlightRecorder recorder_;
    std::optional<HepSender> hep_;
    Operations operations_;
    std::unique_ptr<HttpResponder> monitoring_;
};

}  // namespace gmgate::daemon
