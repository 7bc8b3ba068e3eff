#include "sip/transport/transport.h"

#include <algorithm>

#include <asio/post.hpp>
#include <asio/redirect_error.hpp>
#include <asio/use_awaitable.hpp>

#include "base/source.h"
#include "base/spawn.h"
#include "base/turn.h"
#include "sip/transport/transport_impl.h"

namespace gmgate::sip {

std::string_view to_string(Transport transport) {
    switch (transport) {
        case Transport::udp:
            return "UDP";
        case Transport::tcp:
            return "TCP";
        case Transport::tls:
            return "TLS";
    }
    return "";
}

bool is_reliable(Transport transport) { return transport != Transport::udp; }

std::size_t ByteStream::write_now(std::string_view) { return 0; }
bool ByteStream::half_close() { return false; }

// --- listeners

Result<void> Transports::Impl::listen(const Endpoint& local, ListenOptions options) {
    if (stopped) return failure(Reaction::internal, "the transports are shut down");
    if (local.address.is_any())
        return failure(Reaction::internal,
                       local.to_string() + " is not a concrete address: a Flow could not tell where a message came in");
    if (local.port.value == 0) return failure(Reaction::internal, "a listener needs a port");
    if (listeners.contains(local)) return failure(Reaction::internal, local.to_string() + " is open already");
    Listener listener;
    if (options.udp) {
        auto socket = UdpSocket::open(executor, local, options.report_mark, buffers, counters,
                                      take_inherited(local, true), take_prepared(local.address.family()));
        if (!socket) return std::unexpected(std::move(socket.error()));
        listener.udp = std::move(*socket);
    }
    if (options.tcp) {
        auto socket = TcpListener::open(executor, local, take_inherited(local, false));
        if (!socket) {
            if (listener.udp) listener.udp->close();
            return std::unexpected(std::move(socket.error()));
        }
        listener.tcp = std::move(*socket);
    }
    // Both are open: nothing fails from here on. Handlers hold a weak_ptr, for the sockets are ours and would keep us
    // alive.
    std::weak_ptr<Impl> weak = weak_from_this();
    if (listener.udp)
        listener.udp->start(
            [weak, admits = options.admits](std::string_view bytes, const Flow& flow) {
                if (admits && !admits(flow.remote)) return;
                if (auto self = weak.lock()) self->receive_datagram(bytes, flow);
            },
            options.gives_way ? kStrangersATurn : kOthersATurn);
    if (listener.tcp)
        listener.tcp->start([weak, local, mark = options.report_mark, admits = options.admits](
                                FileDescriptor socket, const Endpoint& remote, Mark syn_mark) {
            if (admits && !admits(remote)) return close_by_reset(socket.get());
            if (auto self = weak.lock()) self->accept(std::move(socket), local, remote, syn_mark, mark);
        });
    listeners.emplace(local, std::move(listener));
    return {};
}

void Transports::Impl::accept(FileDescriptor socket, const Endpoint& local, const Endpoint& remote, Mark mark,
                              bool report_mark) {
    if (stopped) return;
    if (!make_room_for(remote.address)) {
        ++counters->connections_refused_limit;
        close_by_reset(socket.get());
        return;
    }
    tune_connection(socket.get(), limits.user_timeout);
    auto stream = TcpStream::make(executor, std::move(socket));
    if (!stream) return;
    ++counters->connections_accepted;
    add(std::move(*stream), {.transport = Transport::tcp,
                             .local = local,
                             .remote = remote,
                             .connection = {},
                             .mark = report_mark ? mark : Mark()});
}

// --- connections

Flow Transports::Impl::add(std::unique_ptr<ByteStream> stream, Flow flow) {
    auto connection = std::make_shared<Connection>();
    if (flow.connection.value == 0) flow.connection = ConnectionId(++last_id);
    connection->flow = flow;
    connection->stream = std::move(stream);
    connection->begun = connection->last_message = std::chrono::steady_clock::now();
    ++places;
    connections.emplace(flow.connection, connection);
    by_endpoints.insert_or_assign(EndpointPair{flow.local, flow.remote}, flow.connection);
    ++per_source[source_prefix(flow.remote.address)];
    if (opened_handler) {
        connection->mark = opened_handler(flow, connection->stream->native_handle());
        connection->stream->set_step_mark(connection->mark);
    }
    spawn(executor, read_loop(shared_from_this(), connection), "stream reader");
    sweep_later();
    return flow;
}

std::shared_ptr<Connection> Transports::Impl::find(ConnectionId id) const {
    const auto found = connections.find(id);
    return found != connections.end() && !found->second->closing && !found->second->half_closed ? found->second
                                                                                                : nullptr;
}

std::shared_ptr<Connection> Transports::Impl::find_to_send(ConnectionId id) const {
    const auto found = connections.find(id);
    return found != connections.end() && !found->second->closing ? found->second : nullptr;
}

Task<Result<Flow>> Transports::Impl::connect(std::shared_ptr<Impl> self, Endpoint local, Endpoint remote,
                                             std::chrono::milliseconds timeout) {
    const EndpointPair pair{local, remote};
    if (local.port.value == 0) co_return co_await connect_new(self, local, remote, timeout);
    if (const auto live = self->by_endpoints.find(pair); live != self->by_endpoints.end())
        if (const auto connection = self->find(live->second)) co_return connection->flow;
    if (const auto found = self->pending.find(pair); found != self->pending.end()) {
        const auto attempt = found->second;
        asio::error_code cancelled;
        co_await attempt->done.async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
        co_return attempt->result ? *attempt->result : failure(Reaction::broken, "the connection attempt was given up");
    }
    const auto attempt = std::make_shared<PendingConnect>(self->executor);
    self->pending.emplace(pair, attempt);
    attempt->result = co_await connect_new(self, local, remote, timeout);
    self->pending.erase(pair);
    attempt->done.cancel();
    co_return *attempt->result;
}

Task<Result<Flow>> Transports::Impl::connect_new(std::shared_ptr<Impl> self, Endpoint local, Endpoint remote,
                                                 std::chrono::milliseconds timeout) {
    if (self->stopped) co_return failure(Reaction::broken, "the transports are shut down");
    if (!self->make_room_for(remote.address)) {
        ++self->counters->connections_refused_limit;
        co_return failure(Reaction::exhausted,
                          "the limit of stream connections is reached for " + remote.address.to_string());
    }
    ++self->connecting;
    auto stream = co_await TcpStream::connect(self->executor, local, remote, timeout, self->limits.user_timeout);
    --self->connecting;
    if (!stream) co_return std::unexpected(std::move(stream.error()));
    if (self->stopped) co_return failure(Reaction::broken, "the transports were shut down meanwhile");
    ++self->counters->connections_opened;
    const Endpoint bound = (*stream)->local();
    co_return self->add(
        std::move(*stream),
        Flow{.transport = Transport::tcp, .local = bound, .remote = remote, .connection = {}, .mark = {}});
}

// --- the idle sweep: one timer for all connections, a quarter late at most

void Transports::Impl::sweep_later() {
    if (sweeping || stopped || connections.empty()) return;
    sweeping = true;
    const auto idle =
        limits.unbound_idle.count() > 0 ? std::min(limits.unbound_idle, limits.user_timeout) : limits.user_timeout;
    sweeper.expires_after(std::max<std::chrono::milliseconds>(idle, std::chrono::seconds(1)) / 4);
    sweeper.async_wait([self = shared_from_this()](const asio::error_code& error) {
        self->sweeping = false;
        if (error) return;
        self->sweep();
        self->sweep_later();
    });
}

void Transports::Impl::sweep() {
    const TimePoint now = std::chrono::steady_clock::now();
    for (const auto& [id, connection] :
         connections) {  // closing takes nothing out of the table: that happens in later turns
        if (connection->closing) {
            if (now >= connection->close_by) connection->stream->close(true);
        } else if (connection->half_closed) {
            if (now >= connection->close_by) begin_close(connection, false);
        } else if (!connection->kept && limits.unbound_idle.count() > 0 &&
                   now - connection->last_message >= limits.unbound_idle) {
            begin_close(connection, false);
        } else if (has_outlived(*connection, now)) {
            ++counters->connections_outlived;
            begin_close(connection, false);
        }
    }
}

// --- sending

Result<void> Transports::Impl::send(const Flow& flow, std::string bytes) {
    if (may_leave && !may_leave(flow)) {
        ++counters->messages_not_sent;
        return failure(Reaction::broken, "no SA covers " + flow.local.to_string() + " to " + flow.remote.to_string());
    }
    if (traffic_watcher) guarded("traffic watcher", [&] { traffic_watcher(true, flow, bytes); });
    if (flow.transport != Transport::udp) {
        const auto connection = find_to_send(flow.connection);
        if (!connection)
            return failure(Reaction::broken, "there is no connection between " + flow.local.to_string() + " and " +
                                                 flow.remote.to_string());
        if (!is_one_frame(bytes)) {  // whoever made it: the last place where that can be seen
            ++counters->messages_not_sent;
            return failure(Reaction::internal,
                           "a message for a stream has no Content-Length, or another than its body's");
        }
        connection->last_message = std::chrono::steady_clock::now();
        return queue_octets(connection, bytes);
    }
    const auto listener = listeners.find(flow.local);
    if (listener == listeners.end() || !listener->second.udp)
        return failure(Reaction::broken, "no UDP socket is open at " + flow.local.to_string());
    const auto& socket = listener->second.udp;
    const bool first = !socket->has_queued();
    if (auto queued = socket->queue(flow.remote, std::move(bytes)); !queued) return queued;
    if (first) dirty_sockets.push_back(socket);
    flush_later();
    return {};
}

void Transports::Impl::flush_later() {
    if (flush_posted) return;
    flush_posted = true;
    Turn::finish(executor, [self = shared_from_this()] {
        self->flush_posted = false;
        self->flush_all();
    });
}

void Transports::Impl::flush_all() {
    for (const auto& socket : std::exchange(dirty_sockets, {})) socket->flush();
    for (const auto& connection : std::exchange(dirty_connections, {})) {
        connection->dirty = false;
        flush(connection);
    }
}

void Transports::Impl::shutdown() {
    if (std::exchange(stopped, true)) return;
    flush_all();
    sweeper.cancel();
    for (auto& [local, listener] : listeners) {
        if (listener.udp) listener.udp->close();
        if (listener.tcp) listener.tcp->close();
    }
    listeners.clear();
    for (const auto& [id, connection] : connections) {
        connection->closing = true;
        connection->stream->close(false);
        if (connection->half_closed && !connection->writing)
            asio::post(executor, [self = shared_from_this(), connection] { self->finish(connection); });
    }
}

void Transports::Impl::leave() {
    if (stopped) return;
    flush_all();
    stopped = true;  // the descriptors are closed with the process
    sweeper.cancel();
}

// Told apart by what the kernel says of them: no name that came along is trusted.
FileDescriptor Transports::Impl::take_inherited(const Endpoint& local, bool is_udp) {
    const auto found = std::ranges::find_if(inherited, [&](const FileDescriptor& socket) {
        return local_endpoint_of(socket.get()) == local && is_udp_socket(socket.get()) == is_udp &&
               (is_udp || is_listening(socket.get()));
    });
    if (found == inherited.end()) return {};
    auto socket = std::move(*found);
    inherited.erase(found);
    return socket;
}

FileDescriptor Transports::Impl::take_prepared(Family family) {
    const auto found =
        std::ranges::find_if(prepared, [&](const FileDescriptor& socket) { return family_of(socket.get()) == family; });
    if (found == prepared.end()) return {};
    auto socket = std::move(*found);
    prepared.erase(found);
    return socket;
}

// --- the public face

Transports::Transports(asio::any_io_executor executor, TransportLimits limits)
    : impl_(std::make_shared<Impl>(std::move(executor), limits)) {}

Transports::~Transports() {
    impl_->shutdown();
    impl_->message_handler = nullptr;
    impl_->closed_handler = nullptr;
    impl_->closed_watcher = nullptr;
    impl_->answers_due = nullptr;
    impl_->reply_route = nullptr;
    impl_->may_leave = nullptr;
    impl_->limit_of = nullptr;
    impl_->standing_of = nullptr;
    impl_->opened_handler = nullptr;
}

Result<void> Transports::listen(const Endpoint& local, ListenOptions options) {
    return impl_->listen(local, std::move(options));
}

void Transports::close_listener(const Endpoint& local) {
    const auto found = impl_->listeners.find(local);
    if (found != impl_->listeners.end()) {
        const auto listener = std::move(found->second);
        impl_->listeners.erase(found);
        if (listener.udp) listener.udp->close();
        if (listener.tcp) listener.tcp->close();
    }
    for (const auto& [id, connection] : impl_->connections)
        if (connection->flow.local == local) impl_->begin_close(connection, false);
}

void Transports::on_message(MessageHandler handler) { impl_->message_handler = std::move(handler); }
void Transports::on_closed(ClosedHandler handler) { impl_->closed_handler = std::move(handler); }
void Transports::watch_closed(ClosedHandler watcher) { impl_->closed_watcher = std::move(watcher); }
void Transports::set_answers_due(std::function<bool(ConnectionId)> answers_due) {
    impl_->answers_due = std::move(answers_due);
}
void Transports::all_answered(ConnectionId connection) {
    const auto found = impl_->find_to_send(connection);
    if (found && found->half_closed) impl_->begin_close(found, false);
}
void Transports::on_traffic(std::function<void(bool, const Flow&, std::string_view)> watcher) {
    impl_->traffic_watcher = std::move(watcher);
}
void Transports::set_gate(std::function<bool(const Flow&)> may_leave) { impl_->may_leave = std::move(may_leave); }
void Transports::set_message_limit(std::function<MessageLimit(const Flow&)> limit_of) {
    impl_->limit_of = std::move(limit_of);
}

void Transports::set_standing(std::function<Standing(const Flow&)> standing_of) {
    impl_->standing_of = std::move(standing_of);
}
void Transports::set_reply_route(std::function<std::optional<Flow>(const Flow&)> route) {
    impl_->reply_route = std::move(route);
}
std::optional<Flow> Transports::reply_route(const Flow& received_on) const { return impl_->route_reply(received_on); }

Result<void> Transports::send(const Flow& flow, std::string bytes) { return impl_->send(flow, std::move(bytes)); }
void Transports::flush() { impl_->flush_all(); }

Task<Result<Flow>> Transports::connect_tcp(Endpoint local, Endpoint remote, std::chrono::milliseconds timeout) {
    return Impl::connect(impl_, local, remote, timeout);
}

bool Transports::make_room_for(const Address& remote) { return impl_->make_room_for(remote); }

Flow Transports::adopt(std::unique_ptr<ByteStream> stream, Flow flow) {
    if (impl_->stopped || !impl_->make_room_for(flow.remote.address)) {
        ++impl_->counters->connections_refused_limit;
        stream->close(true);
        flow.connection = ConnectionId();
        return flow;
    }
    ++impl_->counters->connections_accepted;
    return impl_->add(std::move(stream), flow);
}

std::optional<Flow> Transports::find_connection(const Endpoint& local, const Endpoint& remote) const {
    const auto found = impl_->by_endpoints.find({local, remote});
    if (found == impl_->by_endpoints.end()) return std::nullopt;
    const auto connection = impl_->find(found->second);
    return connection ? std::optional(connection->flow) : std::nullopt;
}

bool Transports::is_open(ConnectionId connection) const { return impl_->find(connection) != nullptr; }

bool Transports::can_answer(ConnectionId connection) const { return impl_->find_to_send(connection) != nullptr; }

std::optional<Protection> Transports::protection(ConnectionId connection) const {
    const auto found = impl_->find(connection);
    return found ? found->stream->protection() : std::nullopt;
}

void Transports::keep_open(ConnectionId connection, bool keep) {
    if (const auto found = impl_->find(connection)) {
        found->kept = keep;
        found->last_message = std::chrono::steady_clock::now();  // the idle time starts anew
    }
}

void Transports::close(ConnectionId connection, bool reset) {
    const auto found = impl_->connections.find(connection);
    if (found != impl_->connections.end()) impl_->begin_close(found->second, reset);
}

void Transports::shutdown() { impl_->shutdown(); }
void Transports::leave() { impl_->leave(); }
void Transports::prepare(std::vector<FileDescriptor> sockets) { impl_->prepared = std::move(sockets); }
void Transports::inherit(FileDescriptor socket) { impl_->inherited.push_back(std::move(socket)); }
std::vector<FileDescriptor> Transports::take_unused() { return std::exchange(impl_->inherited, {}); }
void Transports::on_opened(std::function<StepMark(const Flow&, int)> handler) {
    impl_->opened_handler = std::move(handler);
}
void Transports::continue_ids_after(ConnectionId id) { impl_->last_id = std::max(impl_->last_id, id.value); }

Flow Transports::resume(std::unique_ptr<ByteStream> stream, Flow flow) {
    continue_ids_after(flow.connection);
    return impl_->add(std::move(stream), flow);
}

Result<Flow> Transports::resume_tcp(FileDescriptor socket, ConnectionId id) {
    const auto remote = remote_endpoint_of(socket.get());
    if (!remote) return failure(Reaction::broken, "the connection ended meanwhile");
    const Flow flow{.transport = Transport::tcp,
                    .local = local_endpoint_of(socket.get()),
                    .remote = *remote,
                    .connection = id,
                    .mark = mark_of_socket(socket.get())};
    auto stream = TcpStream::make(impl_->executor, std::move(socket));
    if (!stream) return std::unexpected(std::move(stream.error()));
    return resume(std::move(*stream), flow);
}

void Transports::for_each_socket(const std::function<void(const Endpoint&, bool, int)>& f) const {
    for (const auto& [local, listener] : impl_->listeners) {
        if (listener.udp) f(local, true, listener.udp->native_handle());
        if (listener.tcp) f(local, false, listener.tcp->native_handle());
    }
}
const TransportCounters& Transports::counters() const { return *impl_->counters; }
std::size_t Transports::connection_count() const { return impl_->connections.size(); }

}  // namespace gmgate::sip
