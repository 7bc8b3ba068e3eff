#include "daemon/proxy/core_link.h"

namespace gmgate::daemon {

namespace {
constexpr std::size_t kDatagramLimit = 1300;  // RFC 3261 §18.1.1: path MTU unknown
}  // namespace

CoreLink::CoreLink(const Core& core, sip::Transports& transports, sip::Transactions& transactions)
    : core_(core), transports_(transports), transactions_(transactions), connector_(transports) {
    via_host_ = core.listen.to_string();
    uri_host_ = via_host_ + std::string(uri_transport(core.transport));
    emergency_next_hop_ = Endpoint::parse(core.emergency_next_hop).value_or(core.next_hop);
}

sip::Transport CoreLink::transport_for(std::size_t octets) const {
    if (core_.transport == CoreTransport::tls) return sip::Transport::tls;
    return core_.transport == CoreTransport::tcp || octets > kDatagramLimit ? sip::Transport::tcp : sip::Transport::udp;
}

bool CoreLink::may_fall_back(sip::Transport transport) const {
    return transport == sip::Transport::tcp && core_.transport == CoreTransport::udp;
}

bool CoreLink::is_core_side(const sip::Flow& flow) const {
    if (flow.local == core_.listen) return true;
    for (const auto& [next_hop, connection] : connections_)
        if (sip::is_reliable(flow.transport) && connection.connection == flow.connection) return true;
    return false;
}

bool CoreLink::is_core_address(const Address& address) const {
    return address == core_.next_hop.address || address == emergency_next_hop_.address;
}

Task<Result<sip::Flow>> CoreLink::flow_to(Endpoint next_hop, sip::Transport transport) {
    if (!sip::is_reliable(transport)) {
        sip::Flow flow;
        flow.transport = sip::Transport::udp;
        flow.local = core_.listen;
        flow.remote = next_hop;
        co_return flow;
    }
    if (const auto known = connections_.find(next_hop); known != connections_.end()) {
        if (transports_.is_open(known->second.connection)) co_return known->second;
        connections_.erase(known);
    }
    const Endpoint from{core_.listen.address, Port{0}};
    const Result<sip::Flow> opened = co_await connector_.connect(from, next_hop, transport);
    if (opened) connections_[next_hop] = *opened;
    co_return opened;
}

Task<Result<std::unique_ptr<sip::ClientTransaction>>> CoreLink::send(std::string request, sip::Transport transport) {
    co_return co_await send(std::move(request), transport, core_.next_hop);
}

Task<Result<std::unique_ptr<sip::ClientTransaction>>> CoreLink::send(std::string request, sip::Transport transport,
                                                                     Endpoint next_hop) {
    const Result<sip::Flow> flow = co_await flow_to(next_hop, transport);
    if (!flow) co_return std::unexpected(flow.error());
    co_return transactions_.send(std::move(request), *flow);
}

Task<Result<void>> CoreLink::send_stateless(std::string bytes, sip::Transport transport) {
    co_return co_await send_stateless(std::move(bytes), transport, core_.next_hop);
}

Task<Result<void>> CoreLink::send_stateless(std::string bytes, sip::Transport transport, Endpoint next_hop) {
    const Result<sip::Flow> flow = co_await flow_to(next_hop, transport);
    if (!flow) co_return std::unexpected(flow.error());
    co_return transactions_.send_stateless(std::move(bytes), *flow);
}

Task<Result<std::unique_ptr<sip::ClientTransaction>>> CoreLink::send_fitting(std::function<std::string(sip::Transport)> build, Endpoint next_hop) {
    std::string text = build(sip::Transport::udp);
    const sip::Transport transport = transport_for(text.size());
    if (transport != sip::Transport::udp) text = build(transport);
    auto client = co_await send(std::move(text), transport, next_hop);
    if (!client && may_fall_back(transport)) {  // RFC 3261 §18.1.1: better a fragmented datagram than no request
        text = build(sip::Transport::udp);
        client = co_await send(std::move(text), sip::Transport::udp, next_hop);
    }
    co_return client;
}

}  // namespace gmgate::daemon
