#include "daemon/restart/handover.h"

#include <sys/socket.h>

#include "base/log.h"

namespace gmgate::daemon {
namespace {

// The one that gives stands still for so long at most. SIP's retransmissions bridge 32 s.
constexpr std::chrono::seconds kPatience{20};
constexpr std::chrono::seconds kStorePatience{5};

// All that listen: what the next process goes on with.
void for_each_socket(const HandoverParts& parts, const std::function<void(int descriptor)>& f) {
    parts.transports.for_each_socket([&](const Endpoint&, bool, int descriptor) { f(descriptor); });
    parts.encap.for_each_socket([&](const Endpoint&, int descriptor) { f(descriptor); });
    parts.tls.for_each_socket([&](const Endpoint&, int descriptor) { f(descriptor); });
}

}  // namespace

Handover::Handover(asio::any_io_executor executor, HandoverParts parts)
    : executor_(executor), p_(parts), watchdog_(executor) {
    p_.transports.on_opened([this](const sip::Flow& flow, int descriptor) { return opened(flow, descriptor); });
}

Result<void> Handover::receive(bool take_over) {
    if (take_over) {
        auto taken = TakeOver::ask(p_.config.restart.take_over_socket, kPatience);
        if (!taken) return std::unexpected(taken.error());
        taken_ = std::move(*taken);
        inheritance_ = std::move(taken_->inheritance);
    } else {
        inheritance_ = inherit_from_service_manager();
    }
    for (const auto& name : inheritance_.unknown) log::warning("unknown-descriptor", {{"name", name}});
    for (auto& socket : inheritance_.sockets) {
        const auto local = sip::local_endpoint_of(socket.get());
        if (sip::is_udp_socket(socket.get()) && p_.encap.is_ours(local)) {
            p_.encap.inherit(std::move(socket));
            continue;
        }
        bool is_tls = p_.config.core.transport == CoreTransport::tls && p_.config.core.listens_at(local);
        for (const auto& interface : p_.config.sip_interfaces)
            for (const auto& port : interface.sip_ports)
                is_tls = is_tls || (port.tls && Endpoint{port.address, port.port} == local);
        if (is_tls) p_.tls.inherit(std::move(socket));
        else p_.transports.inherit(std::move(socket));
    }
    inheritance_.sockets.clear();
    const bool is_inherited = inheritance_.ledger.is_open();
    auto ledger = Ledger::open(std::move(inheritance_.ledger), p_.config.limits.connections);
    if (!ledger && is_inherited) {  // another version: its connections cannot be judged, so they end
        log::warning("connections-not-resumed",
                     {{"count", inheritance_.connections.size()}, {"reason", ledger.error().text}});
        for (auto& [id, socket] : inheritance_.connections) ::shutdown(socket.get(), SHUT_RDWR);
        inheritance_.connections.clear();
        auto fresh = Ledger::open({}, p_.config.limits.connections);
        if (!fresh) return std::unexpected(fresh.error());
        ledger_.emplace(std::move(*fresh));
        return {};
    }
    if (!ledger) return std::unexpected(ledger.error());
    ledger_.emplace(std::move(*ledger));
    return {};
}

std::optional<sip::Flow> Handover::resume_one(sip::ConnectionId id, sip::FileDescriptor socket) {
    const auto entry = ledger_->find(id);
    if (!entry || !entry->is_in_step) {
        p_.counters.add(Counter::connections_out_of_step);
        log::info("connection-out-of-step",
                  {{"connection", id.value},
                   {"why", entry ? "the process before ended amid a message" : "nothing is known of it"}});
        ::shutdown(socket.get(), SHUT_RDWR);
        return std::nullopt;
    }
    auto flow = entry->transport == sip::Transport::tls ? p_.tls.resume(std::move(socket), id, entry->session)
                                                        : p_.transports.resume_tcp(std::move(socket), id);
    if (!flow) {
        log::info("connection-not-resumed", {{"connection", id.value}, {"reason", flow.error().text}});
        return std::nullopt;
    }
    p_.counters.add(Counter::connections_resumed);
    return *flow;
}

void Handover::resume() {
    for (const auto& socket : p_.transports.take_unused()) service_.remove(socket_name_of(socket.get()));
    for (const auto& socket : p_.tls.take_unused()) service_.remove(socket_name_of(socket.get()));
    const auto count = inheritance_.connections.size();
    for (auto& [id, socket] : inheritance_.connections) {
        p_.transports.continue_ids_after(id);
        if (auto flow = resume_one(id, std::move(socket))) resumed_.emplace(id, *flow);
        else service_.remove(name_of(id));
    }
    inheritance_.connections.clear();
    ledger_->forget_all_but([&](sip::ConnectionId id) { return resumed_.contains(id); });
    if (count != 0)
        log::notice("connections-resumed", {{"resumed", resumed_.size()},
                                            {"closed", count - resumed_.size()},
                                            {"from", taken_ ? "the running process" : "the fd store"}});
    service_.store(kLedgerName, ledger_->descriptor());
    for_each_socket(p_, [&](int descriptor) { service_.store(socket_name_of(descriptor), descriptor); });
}

std::optional<sip::Flow> Handover::flow_of(sip::ConnectionId connection) const {
    const auto at = resumed_.find(connection);
    return at == resumed_.end() ? std::nullopt : std::optional(at->second);
}

void Handover::settle() {
    for (const auto& [id, flow] : resumed_) {
        const auto owner = p_.table.owner_of(flow);
        if (owner.set || owner.registration) p_.transports.keep_open(id, true);
        else p_.transports.close(id, flow.transport != sip::Transport::tls);
    }
    resumed_.clear();
}

void Handover::stand_by() {
    service_.ready();
    if (const auto interval = ServiceManager::watchdog()) keep_alive(*interval / 2);
}

Result<void> Handover::serve(std::function<void()> left) {
    if (taken_) {
        if (auto ok = taken_->done(); !ok) return ok;
        taken_.reset();
    }
    service_.ready();
    if (const auto interval = ServiceManager::watchdog()) keep_alive(*interval / 2);
    if (p_.config.restart.take_over_socket.empty()) return {};
    TakeOverServer::Parts parts;
    parts.prepare = [this]() -> Result<void> {
        p_.transports.flush();
        p_.keeper.write_now();
        if (!p_.store.flush(kStorePatience))
            return failure(Reaction::retry,
                           "the store cannot be written, and the next process would not know every registration");
        return {};
    };
    parts.holdings = [this] { return holdings(); };
    parts.handed_over = [this, then = std::move(left)] {
        log::notice("handed-over", {{"connections", descriptors_.size()},
                                    {"why", "the process that took over serves; this one leaves"}});
        p_.transports.leave();
        then();
    };
    server_ =
        std::make_unique<TakeOverServer>(executor_, p_.config.restart.take_over_socket, kPatience, std::move(parts));
    if (auto ok = server_->open(); !ok) {
        log::warning("take-over-unavailable", {{"reason", ok.error().text}});
        server_.reset();
    }
    return {};
}

// A connection over SAs came from a phone that holds them, one over TLS has done its handshake; nothing else is worth a
// place.
StepMark Handover::opened(const sip::Flow& flow, int descriptor) {
    const bool is_wanted =
        p_.accesses.find(flow.local) && (flow.transport == sip::Transport::tls || p_.accesses.is_protected(flow.local));
    if (!is_wanted || descriptor < 0 || !ledger_) return {};
    const auto mark = ledger_->enter({flow.connection, flow.transport, p_.tls.session_info(), true});
    if (!mark) return {};
    descriptors_[flow.connection] = descriptor;
    service_.store(name_of(flow.connection), descriptor);
    return *mark;
}

void Handover::closed(const sip::Flow& flow) {
    if (descriptors_.erase(flow.connection) == 0) return;
    ledger_->leave(flow.connection);
    service_.remove(name_of(flow.connection));
}

std::vector<HandedOver> Handover::holdings() {
    std::vector<HandedOver> all{{kLedgerName, ledger_->descriptor()}};
    if (p_.store.lock_descriptor() >= 0) all.push_back({kLockName, p_.store.lock_descriptor()});
    for_each_socket(p_, [&](int descriptor) { all.push_back({socket_name_of(descriptor), descriptor}); });
    for (const auto& [id, descriptor] : descriptors_) all.push_back({name_of(id), descriptor});
    return all;
}

// From the loop: a process whose loop stands still is no longer alive.
void Handover::keep_alive(std::chrono::microseconds interval) {
    service_.alive();
    watchdog_.expires_after(interval);
    watchdog_.async_wait([this, interval](const asio::error_code& error) {
        if (!error) keep_alive(interval);
    });
}

bool Handover::leave() {
    server_.reset();
    watchdog_.cancel();
    service_.stopping();
    if (!service_.is_there()) return false;
    p_.transports.leave();
    return true;
}

}  // namespace gmgate::daemon
