#include "daemon/tls/connector.h"

#include "base/log.h"
#include "sip/transport/stream.h"

namespace gmgate::daemon {

namespace {
constexpr std::chrono::milliseconds kUserTimeout{10000};
}  // namespace

Result<void> TlsConnector::open(const TlsPeer& peer) {
    if (auto handshaker = engine_.handshaker(); !handshaker) return std::unexpected(handshaker.error());
    for (const std::string& name : peer.names) {
        auto context = ktls::Context::client(
            {.ca_file = peer.ca_file, .verify = true, .server_name = name, .certificates = peer.own_certificates});
        if (!context) return std::unexpected(context.error());
        contexts_[name] = engine_.certificates().add("core " + name, std::move(*context), peer.warn_ahead);
    }
    default_name_ = peer.names.front();
    return {};
}

Task<Result<sip::Flow>> TlsConnector::connect(Endpoint local, Endpoint remote, std::string name,
                                              std::chrono::milliseconds timeout) {
    auto flow = co_await establish(local, remote, std::move(name), timeout);
    if (!flow) {
        log::warning("tls-connect-failed",
                     {{"local", local.to_string()}, {"remote", remote.to_string()}, {"reason", flow.error().text}});
        if (flow.error().reaction != Reaction::exhausted) flow.error().reaction = Reaction::broken;
    }
    co_return flow;
}

Task<Result<sip::Flow>> TlsConnector::establish(Endpoint local, Endpoint remote, std::string name,
                                                std::chrono::milliseconds timeout) {
    auto handshaker = engine_.handshaker();
    if (!handshaker) co_return std::unexpected(handshaker.error());
    const auto context = contexts_.find(name.empty() ? default_name_ : name);
    if (context == contexts_.end())
        co_return failure(Reaction::internal,
                          "no trusted certificates are loaded for TLS towards " + remote.to_string());
    const auto trusted = context->second;
    auto stream = co_await sip::TcpStream::connect(executor_, local, remote, timeout, kUserTimeout);
    if (!stream) co_return std::unexpected(stream.error());
    const Endpoint bound = (*stream)->local();
    auto handshake = (*handshaker)->connect(ktls::OwnedFd((*stream)->release().release()), *trusted, timeout);
    auto established = co_await std::move(handshake);
    if (!established) co_return std::unexpected(established.error());
    log::info("tls-connected", {{"local", bound.to_string()},
                                {"remote", remote.to_string()},
                                {"suite", established->suite},
                                {"kernel", established->connection->is_kernel() ? "yes" : "no"}});
    auto flow = transports_.adopt(as_byte_stream(std::move(established->connection)),
                                  {sip::Transport::tls, bound, remote, {}, {}});
    if (flow.connection == sip::ConnectionId{})
        co_return failure(Reaction::exhausted, "too many connections: see [limits] connections");
    transports_.keep_open(flow.connection, true);
    co_return flow;
}

}  // namespace gmgate::daemon
