#include "daemon/tls_listener.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include <asio/posix/stream_descriptor.hpp>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>
#include <fmt/format.h>

#include "base/log.h"
#include "sip/spawn.h"

namespace gmgate::daemon {
namespace {

constexpr std::chrono::milliseconds kHandshakeLimit{10000};
constexpr std::size_t kHandshakesAtOnce = 1024;  // half handshakes held open; each costs a socket and an OpenSSL object
constexpr int kBacklog = 1024;

ktls::KernelTls mode_of(Ktls mode) {
    switch (mode) {
        case Ktls::required: return ktls::KernelTls::required;
        case Ktls::preferred: return ktls::KernelTls::preferred;
        case Ktls::off: return ktls::KernelTls::off;
    }
    return ktls::KernelTls::off;
}

/// A TLS connection as the SIP layer sees it.
class TlsStream final : public sip::ByteStream {
public:
    explicit TlsStream(std::unique_ptr<ktls::Connection> connection) : connection_(std::move(connection)) {}
    Task<Result<std::size_t>> read(std::string& out) override { return connection_->read(out); }
    Task<Result<void>> write(std::string_view bytes) override { return connection_->write(bytes); }
    std::size_t write_now(std::string_view bytes) override { return connection_->write_now(bytes); }
    bool half_close() override { return connection_->half_close(); }
    void close(bool reset) override { connection_->close(reset); }

private:
    std::unique_ptr<ktls::Connection> connection_;
};

Result<ktls::OwnedFd> listening_socket(const Endpoint& local) {
    ktls::OwnedFd socket(::socket(local.address.af(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    sockaddr_storage address{};
    const auto length = local.to_sockaddr(address);
    const int on = 1;
    const bool ok = socket.is_open() && setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
                    bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), length) == 0 && listen(socket.get(), kBacklog) == 0;
    if (!ok) return system_failure(Reaction::broken, fmt::format("TLS port {}", local.to_string()), errno);
    return socket;
}

}  // namespace

struct TlsListeners::Port {
    Port(const asio::any_io_executor& executor, int fd, ktls::Context c, Endpoint e) : listener(executor, fd), context(std::move(c)), local(e) {}
    asio::posix::stream_descriptor listener;
    ktls::Context context;
    Endpoint local;
    std::size_t handshakes = 0;
};

TlsListeners::TlsListeners(asio::any_io_executor executor, const Config& config, sip::Transports& transports)
    : executor_(std::move(executor)), config_(config), transports_(transports) {}

TlsListeners::~TlsListeners() { close(); }

Result<void> TlsListeners::open() {
    for (const auto& interface : config_.sip_interfaces)
        for (const auto& port : interface.sip_ports)
            if (port.tls)
                if (auto ok = open_port(port); !ok) return ok;
    return {};
}

Result<void> TlsListeners::open_port(const SipPort& port) {
    if (!handshaker_) {
        auto made = ktls::Handshaker::make(executor_, {.kernel = mode_of(config_.ktls), .threads = 2});
        if (!made) return std::unexpected(made.error());
        handshaker_ = std::make_unique<ktls::Handshaker>(std::move(*made));
    }
    const auto* profile = config_.tls_profile(port.tls_profile);
    ktls::ServerOptions options;
    for (std::size_t i = 0; i < profile->end_entity_certs.size(); ++i) options.certificates.push_back({profile->end_entity_certs[i], profile->private_keys[i]});
    auto context = ktls::Context::server(std::move(options));
    if (!context) return std::unexpected(context.error());
    if (context->expires_within(std::chrono::days{30}))
        log::warning("certificate-expires", {{"profile", profile->name}, {"why", "a certificate ends within 30 days; renew it"}});
    const Endpoint local{port.address, port.port};
    auto socket = listening_socket(local);
    if (!socket) return std::unexpected(socket.error());
    ports_.push_back(std::make_shared<Port>(executor_, socket->release(), std::move(*context), local));
    sip::spawn(executor_, serve(ports_.back()), "tls-accept");
    return {};
}

void TlsListeners::close() {
    for (const auto& port : ports_) {
        asio::error_code ignored;
        port->listener.close(ignored);
    }
    ports_.clear();
}

std::string TlsListeners::kernel_words() const {
    if (!handshaker_) return {};
    return handshaker_->uses_kernel() ? "in the kernel" : "in this process: " + handshaker_->no_kernel_reason();
}

const ktls::Counters* TlsListeners::counters() const { return handshaker_ ? &handshaker_->counters() : nullptr; }

Task<void> TlsListeners::serve(std::shared_ptr<Port> port) {
    while (port->listener.is_open()) {
        asio::error_code error;
        co_await port->listener.async_wait(asio::posix::stream_descriptor::wait_read, asio::redirect_error(asio::use_awaitable, error));
        if (error) co_return;
        sockaddr_storage address{};
        socklen_t length = sizeof address;
        ktls::OwnedFd socket(accept4(port->listener.native_handle(), reinterpret_cast<sockaddr*>(&address), &length, SOCK_NONBLOCK | SOCK_CLOEXEC));
        if (!socket.is_open()) {
            if (errno != EMFILE && errno != ENFILE) continue;
            asio::steady_timer pause(executor_, std::chrono::milliseconds{100});  // out of descriptors: the backlog waits
            co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, error));
            continue;
        }
        const auto remote = Endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&address));
        if (!remote || port->handshakes >= kHandshakesAtOnce || !transports_.has_room_for(remote->address)) continue;  // closes it
        sip::spawn(executor_, welcome(port, std::move(socket), *remote), "tls-handshake");
    }
}

Task<void> TlsListeners::welcome(std::shared_ptr<Port> port, ktls::OwnedFd socket, Endpoint remote) {
    ++port->handshakes;
    auto established = co_await handshaker_->accept(std::move(socket), port->context, kHandshakeLimit);
    --port->handshakes;
    if (!established) {
        log::info("tls-handshake-failed", {{"peer", remote.to_string()}, {"local", port->local.to_string()}, {"reason", established.error().text}});
        co_return;
    }
    log::debug("tls-established", {{"peer", remote.to_string()}, {"suite", established->suite}, {"kernel", established->connection->is_kernel() ? "yes" : "no"}});
    const sip::Flow flow{sip::Transport::tls, port->local, remote, {}, {}};
    transports_.adopt(std::make_unique<TlsStream>(std::move(established->connection)), flow);
}

}  // namespace gmgate::daemon
