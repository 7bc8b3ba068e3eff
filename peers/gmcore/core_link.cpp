#include "core_link.h"

#include "../common/text.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace gmgate::peers {

void CoreLink::use_tls(std::shared_ptr<const TlsContext> server, std::shared_ptr<const TlsContext> client) {
    server_tls_ = std::move(server);
    client_tls_ = std::move(client);
}

Result<void> CoreLink::listen(const Endpoint& local) {
    auto udp = UdpPort::open(loop_, local, [this, local](std::string text, const Endpoint& from) {
        receive(std::move(text), {false, local, from, 0});
    });
    if (!udp) return std::unexpected(udp.error());
    auto tcp = TcpListener::open(loop_, local, [this](Fd fd, const Endpoint&) {
        const std::uint64_t id = next_connection_++;
        auto connection = TcpConnection::adopt(loop_, std::move(fd), events_for(id), server_tls_);
        if (connection) connections_[id].tcp = std::move(*connection);
    });
    if (!tcp) return std::unexpected(tcp.error());
    addresses_.push_back(local);
    udp_.push_back(std::move(*udp));
    listeners_.push_back(std::move(*tcp));
    return {};
}

TcpConnection::Events CoreLink::events_for(std::uint64_t id) {
    return {[this, id](TcpConnection& connection, std::string text) {
                receive(std::move(text), {true, connection.local(), connection.remote(), id});
            },
            [this, id](TcpConnection&, const std::string& reason) {
                log_.write({{"event", "connection_closed"}, {"text", reason}});
                forget_later(id);
            }};
}

// A connection reports its end from inside its own member function: destroy it at the next turn of the loop.
void CoreLink::forget_later(std::uint64_t id) {
    dead_.push_back(id);
    sweep_ = loop_.after(Duration::zero(), [this] {
        for (const std::uint64_t dead : std::exchange(dead_, {})) connections_.erase(dead);
    });
}

void CoreLink::receive(std::string text, const Origin& origin) {
    if (trim(text).empty()) return;  // keep-alive
    log_.message({true, log_name(origin.tcp), origin.local, origin.remote}, text);
    auto message = SipMessage::parse(text);
    if (message) handler_(std::move(*message), origin);
}

void CoreLink::transmit(TcpConnection& connection, const std::string& text) {
    log_.message({false, log_name(true), connection.local(), connection.remote()}, text);
    connection.send(text);
}

bool CoreLink::send_on(std::uint64_t connection, const SipMessage& message) {
    const auto it = connections_.find(connection);
    if (it == connections_.end() || !it->second.tcp->is_open()) return false;
    transmit(*it->second.tcp, message.to_string());
    return true;
}

void CoreLink::send(const SipMessage& message, bool tcp, const Endpoint& to) {
    const auto local = address_towards(to);
    if (!local)
        return log_.write({{"event", "error"}, {"text", "no listening address of the family of " + to.to_string()}});
    const std::string text = message.to_string();
    if (!tcp) {
        const auto index = static_cast<std::size_t>(std::ranges::find(addresses_, *local) - addresses_.begin());
        log_.message({false, "udp", *local, to}, text);
        if (const auto sent = udp_[index]->send(text, to); !sent)
            log_.write({{"event", "error"}, {"text", sent.error().text}});
        return;
    }
    const auto known = std::ranges::find_if(connections_, [&](const auto& entry) {
        return entry.second.tcp->is_open() && entry.second.tcp->remote() == to;
    });
    if (known != connections_.end()) return transmit(*known->second.tcp, text);
    const std::uint64_t id = next_connection_++;
    auto connection = TcpConnection::connect(loop_, local->with_port(0), to, events_for(id), client_tls_);
    if (!connection) return log_.write({{"event", "error"}, {"text", connection.error().text}});
    Connection& entry = connections_[id];
    entry.tcp = std::move(*connection);
    entry.outgoing = true;
    transmit(*entry.tcp, text);
}

void CoreLink::respond(const SipMessage& response, const Origin& origin) {
    if (origin.tcp && send_on(origin.connection, response)) return;
    const auto target = via_target(response);
    if (!target) return log_.write({{"event", "error"}, {"text", target.error().text}});
    send(response, target->tcp, target->to);
}

std::optional<Endpoint> CoreLink::address_towards(const Endpoint& peer) const {
    const auto it =
        std::ranges::find_if(addresses_, [&](const Endpoint& own) { return own.family() == peer.family(); });
    if (it == addresses_.end()) return std::nullopt;
    return *it;
}

bool CoreLink::is_own(const Endpoint& address) const {
    return std::ranges::find(addresses_, address) != addresses_.end();
}

Result<ViaTarget> via_target(const SipMessage& response) {
    const auto vias = response.list("Via");
    if (vias.empty()) return fail("a response without Via");
    const auto via = Via::parse(vias.front());
    if (!via) return std::unexpected(via.error());
    const std::string* received = via->parameters.find("received");
    const std::string* rport = via->parameters.find("rport");
    std::uint16_t port = via->port != 0 ? via->port : 5060;
    if (rport && !rport->empty()) port = to_number<std::uint16_t>(*rport).value_or(port);
    auto to = Endpoint::parse(received && !received->empty() ? *received : via->host, port);
    if (!to) return std::unexpected(to.error());
    return ViaTarget{iequals(via->transport, "TCP") || iequals(via->transport, "TLS"), to->with_port(port)};
}

}  // namespace gmgate::peers
