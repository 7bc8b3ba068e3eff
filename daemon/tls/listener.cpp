#include "daemon/tls/listener.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <utility>

#include <fmt/format.h>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>

#include "base/log.h"
#include "base/spawn.h"
#include "daemon/tls/profile_options.h"

namespace gmgate::daemon {
namespace {

constexpr unsigned kLinesPerSecond = 20;  // of what any stranger can cause
constexpr int kBacklog = 1024;

Result<ktls::OwnedFd> listening_socket(const Endpoint& local) {
    ktls::OwnedFd socket(::socket(local.address.af(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    sockaddr_storage address{};
    const auto length = local.to_sockaddr(address);
    const int on = 1;
    const bool ok = socket.is_open() && setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
                    bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), length) == 0 &&
                    listen(socket.get(), kBacklog) == 0;
    if (!ok) return system_failure(Reaction::broken, fmt::format("TLS port {}", local.to_string()), errno);
    return socket;
}

/// Given back when the handshake is over, however it ends; perhaps after the listeners.
struct HeldPlace {
    HeldPlace(std::shared_ptr<Handshakes> h, Handshakes::Place p) : handshakes(std::move(h)), place(p) {}
    HeldPlace(const HeldPlace&) = delete;
    HeldPlace& operator=(const HeldPlace&) = delete;
    ~HeldPlace() { handshakes->end(place); }
    std::shared_ptr<Handshakes> handshakes;
    Handshakes::Place place;
};

}  // namespace

struct TlsListeners::Port {
    Port(const asio::any_io_executor& executor, int fd, SharedContext c, Endpoint e)
        : listener(executor, fd), context(std::move(c)), local(e) {}
    asio::posix::stream_descriptor listener;
    SharedContext context;
    Endpoint local;
};

TlsListeners::TlsListeners(asio::any_io_executor executor, const Config& config, TlsEngine& engine,
                           sip::Transports& transports, Counters& counters)
    : executor_(std::move(executor)),
      config_(config),
      engine_(engine),
      transports_(transports),
      counters_(counters),
      handshakes_(std::make_shared<Handshakes>(
          HandshakeLimits{config.limits.tls_handshakes, config.limits.tls_handshakes_per_address},
          [this](int socket) { end_handshake(socket); })) {}

TlsListeners::~TlsListeners() { close(); }

Result<void> TlsListeners::open() {
    for (const auto& interface : config_.sip_interfaces)
        for (const auto& port : interface.sip_ports)
            if (port.tls)
                if (auto ok = open_access_port({port.address, port.port}, *config_.tls_profile(port.tls_profile)); !ok)
                    return ok;
    const auto& core = config_.core;
    if (core.transport != CoreTransport::tls) return {};
    auto context = core_context(*config_.tls_profile(core.tls_profile));
    if (!context) return std::unexpected(context.error());
    for (const Endpoint& local : core.listen)
        if (auto ok = open_port(local, *context); !ok) return ok;
    return {};
}

Result<void> TlsListeners::open_access_port(const Endpoint& local, const TlsProfile& profile) {
    auto context = access_context(profile);
    if (context) return open_port(local, std::move(*context));
    missing_[local] = &profile;
    log::error("tls-port-not-opened", {{"address", local.to_string()},
                                       {"tls-profile", profile.name},
                                       {"why", context.error().text},
                                       {"now", "no phone can use TLS there; mend it and send SIGHUP"}});
    return {};
}

Result<void> TlsListeners::open_missing() {
    std::string closed;
    for (const auto& [local, profile] : std::exchange(missing_, {})) {
        if (const auto ok = open_access_port(local, *profile); !ok) {
            missing_[local] = profile;  // the next reload tries it once more
            closed += fmt::format("{}{}", closed.empty() ? "" : "; ", ok.error().text);
        } else if (missing_.contains(local)) {
            closed += fmt::format("{}the TLS port {} is still closed: tls-profile {}", closed.empty() ? "" : "; ",
                                  local.to_string(), profile->name);
        } else {
            log::notice("tls-port-opened", {{"address", local.to_string()}});
        }
    }
    if (!closed.empty()) return failure(Reaction::refused, std::move(closed));
    return {};
}

// One for all ports of a profile: a session that began on one port can be resumed on another.
Result<TlsListeners::SharedContext> TlsListeners::access_context(const TlsProfile& profile) {
    if (const auto known = access_contexts_.find(profile.name); known != access_contexts_.end()) return known->second;
    auto options = phone_options(config_, profile);
    if (!options) return std::unexpected(std::move(options.error()));
    auto context = ktls::Context::server(std::move(*options));
    if (!context) return std::unexpected(context.error());
    return access_contexts_[profile.name] =
               engine_.certificates().add("tls-profile " + profile.name, std::move(*context), profile.expiry_warning);
}

Result<TlsListeners::SharedContext> TlsListeners::core_context(const TlsProfile& profile) {
    auto options = core_options(config_, profile);
    if (!options) return std::unexpected(std::move(options.error()));
    auto context = ktls::Context::server(std::move(*options));
    if (!context) return std::unexpected(context.error());
    return engine_.certificates().add("core listen", std::move(*context), profile.expiry_warning);
}

Result<void> TlsListeners::open_port(const Endpoint& local, SharedContext context) {
    if (auto handshaker = engine_.handshaker(); !handshaker) return std::unexpected(handshaker.error());
    Result<ktls::OwnedFd> socket = ktls::OwnedFd(take_inherited(local));
    if (!socket->is_open()) socket = listening_socket(local);
    if (!socket) return std::unexpected(socket.error());
    ports_.push_back(std::make_shared<Port>(executor_, socket->release(), std::move(context), local));
    spawn_lasting(
        executor_, [this, port = ports_.back()] { return serve(port); }, "tls-accept");
    return {};
}

void TlsListeners::close() {
    for (const auto& port : ports_) {
        asio::error_code ignored;
        port->listener.close(ignored);
    }
    ports_.clear();
}

int TlsListeners::take_inherited(const Endpoint& local) {
    const auto found = std::ranges::find_if(
        inherited_, [&](const sip::FileDescriptor& socket) { return sip::local_endpoint_of(socket.get()) == local; });
    if (found == inherited_.end()) return -1;
    const int fd = found->release();
    inherited_.erase(found);
    return fd;
}

void TlsListeners::for_each_socket(const std::function<void(const Endpoint&, int)>& f) const {
    for (const auto& port : ports_) f(port->local, port->listener.native_handle());
}

Result<sip::Flow> TlsListeners::resume(sip::FileDescriptor socket, sip::ConnectionId id,
                                       const ktls::SessionInfo& info) {
    const auto remote = sip::remote_endpoint_of(socket.get());
    if (!remote) return failure(Reaction::broken, "the connection ended meanwhile");
    const sip::Flow flow{sip::Transport::tls, sip::local_endpoint_of(socket.get()), *remote, id, {}};
    auto connection = ktls::make_kernel_connection(executor_, ktls::OwnedFd(socket.release()), info, resumed_counters_);
    if (!connection) return std::unexpected(connection.error());
    session_info_ = info;
    return transports_.resume(as_byte_stream(std::move(*connection)), flow);
}

Task<void> TlsListeners::serve(std::shared_ptr<Port> port) {
    while (port->listener.is_open()) {
        asio::error_code error;
        co_await port->listener.async_wait(asio::posix::stream_descriptor::wait_read,
                                           asio::redirect_error(asio::use_awaitable, error));
        if (error) co_return;
        sockaddr_storage address{};
        socklen_t length = sizeof address;
        ktls::OwnedFd socket(accept4(port->listener.native_handle(), reinterpret_cast<sockaddr*>(&address), &length,
                                     SOCK_NONBLOCK | SOCK_CLOEXEC));
        if (!socket.is_open()) {
            if (errno != EMFILE && errno != ENFILE) continue;
            asio::steady_timer pause(executor_,
                                     std::chrono::milliseconds{100});  // out of descriptors: the backlog waits
            co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, error));
            continue;
        }
        const auto remote = Endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&address));
        if (!remote || !may_come(*port, *remote)) continue;  // closes it
        const auto place = admit(remote->address, socket.get());
        if (!place) continue;  // closes it
        spawn(executor_, welcome(port, std::move(socket), *remote, *place), "tls-handshake");
    }
}

bool TlsListeners::may_come(const Port& port, const Endpoint& remote) const {
    return !core_admits_ || !config_.core.listens_at(port.local) || core_admits_(remote, port.local);
}

// Carrier NAT puts many honest phones behind one address.
std::optional<Handshakes::Place> TlsListeners::admit(const Address& remote, int socket) {
    const char* reason = "connections or connections-per-address";
    if (transports_.make_room_for(remote)) {
        if (const auto place = handshakes_->begin(remote, socket, is_known_ && is_known_(remote))) return place;
        reason = handshakes_->limit_met();
    }
    counters_.add(Counter::tls_refused);
    if (may_log())
        log::notice("tls-refused",
                    {{"peer", remote.to_string()}, {"limit", reason}, {"under-way", handshakes_->count()}});
    return std::nullopt;
}

// The handshake sees the end of its connection. Its socket is open: welcome() gives the place back in the very turn of
// the loop in which it learns that the handshake is over.
void TlsListeners::end_handshake(int socket) {
    counters_.add(Counter::tls_gave_way);
    ::shutdown(socket, SHUT_RDWR);
}

bool TlsListeners::may_log() {
    const auto second =
        std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now().time_since_epoch());
    if (second != log_second_) {
        if (lines_ > kLinesPerSecond) log::notice("tls-lines-left-out", {{"count", lines_ - kLinesPerSecond}});
        log_second_ = second;
        lines_ = 0;
    }
    return ++lines_ <= kLinesPerSecond;
}

Task<void> TlsListeners::welcome(std::shared_ptr<Port> port, ktls::OwnedFd socket, Endpoint remote,
                                 Handshakes::Place place) {
    std::optional<HeldPlace> held(std::in_place, handshakes_, place);
    auto handshaker = engine_.handshaker();
    if (!handshaker) co_return;  // open_port() had one
    auto handshake = (*handshaker)->accept(std::move(socket), *port->context, config_.timers.tls_handshake);
    auto established = co_await std::move(handshake);
    const bool gave_way = place->gave_way;
    held.reset();
    if (!established || gave_way) {
        if (may_log())
            log::info("tls-handshake-failed",
                      {{"peer", remote.to_string()},
                       {"local", port->local.to_string()},
                       {"reason", gave_way ? "it gave way to a newer one: see [limits] tls-handshakes"
                                           : established.error().text}});
        co_return;
    }
    session_info_ = established->connection->info();
    log::debug("tls-established", {{"peer", remote.to_string()},
                                   {"suite", established->suite},
                                   {"kernel", established->connection->is_kernel() ? "yes" : "no"}});
    const sip::Flow flow{sip::Transport::tls, port->local, remote, {}, {}};
    transports_.adopt(as_byte_stream(std::move(established->connection)), flow);
}

}  // namespace gmgate::daemon
