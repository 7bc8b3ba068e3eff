// One stream connection: its reader and writer flows, its queue, its end.
#include <asio/post.hpp>
#include <asio/use_awaitable.hpp>

#include "base/secret.h"
#include "base/spawn.h"
#include "base/turn.h"
#include "sip/transport/transport_impl.h"

namespace gmgate::sip {

Task<> Transports::Impl::read_loop(std::shared_ptr<Impl> self, std::shared_ptr<Connection> connection) {
    co_await asio::post(self->executor,
                        asio::use_awaitable);  // whoever added the connection sees its Flow before the first message
    for (;;) {
        std::string bytes;  // lives for one turn: an idle connection holds no buffer
        Result<std::size_t> count = failure(Reaction::internal, "the stream threw");
        try {
            count = co_await connection->stream->read(bytes);
        } catch (...) {
            log_exception("stream reader", std::current_exception());
        }
        if (!count) {
            connection->queue.clear();
            break;
        }
        if (*count == 0) {
            if (self->go_on_answering(connection)) co_return;
            break;
        }
        // What throws there (out of memory) may have lost a part of a message: the peer begins anew.
        if (!connection->closing && !guarded("stream", [&] {
                const Turn turn;
                self->receive_stream(connection, bytes);
            }))
            self->begin_close(connection, true);
        wipe(bytes.data(), bytes.size());
        connection->settle();
        bytes = {};
        if (self->standing(*connection) != Standing::known) co_await self->strangers_turns.wait();
    }
    // The peer may have closed only its sending side: what is queued for it still goes out.
    connection->reader_done = true;
    self->begin_close(connection, false);
    if (!connection->writing) self->finish(connection);
}

Task<> Transports::Impl::write_loop(std::shared_ptr<Impl> self, std::shared_ptr<Connection> connection) {
    while (!connection->queue.empty()) {
        const std::string part = std::exchange(connection->queue, {});
        connection->in_flight = part.size();
        Result<void> written = failure(Reaction::internal, "the stream threw");
        try {
            written = co_await connection->stream->write(part);
        } catch (...) {
            log_exception("stream writer", std::current_exception());
        }
        connection->in_flight = 0;
        if (!written) {
            connection->queue.clear();
            self->begin_close(connection, true);
        }
    }
    connection->writing = false;
    if (!connection->closing) {
        connection->settle();
        co_return;
    }
    self->end_writing(connection);
    if (connection->reader_done) self->finish(connection);
}

Result<void> Transports::Impl::queue_octets(const std::shared_ptr<Connection>& connection, std::string_view bytes) {
    if (connection->queued() + bytes.size() > limits.write_queue_octets) {
        ++counters->write_queue_overflows;
        begin_close(connection, true);
        return failure(Reaction::exhausted,
                       "the peer " + connection->flow.remote.to_string() + " does not read: its write queue is full");
    }
    connection->queue += bytes;
    if (!std::exchange(connection->dirty, true)) dirty_connections.push_back(connection);
    flush_later();
    return {};
}

void Transports::Impl::flush(const std::shared_ptr<Connection>& connection) {
    if (connection->writing || connection->queue.empty()) return;
    connection->mark.set();
    const std::size_t written = connection->stream->write_now(connection->queue);
    connection->queue.erase(0, written);
    if (connection->queue.empty()) {
        connection->queue.shrink_to_fit();
        connection->settle();
        if (connection->closing) end_writing(connection);
        return;
    }
    connection->writing = true;
    spawn(executor, write_loop(shared_from_this(), connection), "stream writer");
}

void Transports::Impl::begin_close(const std::shared_ptr<Connection>& connection, bool reset) {
    if (!std::exchange(connection->closing, true)) {
        connection->mark.set();
        connection->close_by = std::chrono::steady_clock::now() + limits.user_timeout;
        forget_endpoints(*connection);
    }
    if (reset) {
        connection->queue.clear();
        connection->stream->close(true);
    } else {
        flush(connection);
        if (!connection->writing && connection->queue.empty()) end_writing(connection);
    }
    // Nobody reads it any more who would see its end. Later: whoever called walks over the table.
    if (connection->half_closed && !connection->writing)
        asio::post(executor, [self = shared_from_this(), connection] { self->finish(connection); });
}

void Transports::Impl::forget_endpoints(const Connection& connection) {
    const auto found = by_endpoints.find({connection.flow.local, connection.flow.remote});
    if (found != by_endpoints.end() && found->second == connection.flow.connection) by_endpoints.erase(found);
}

// What was asked over it is answered there; what we have asked the peer there, it cannot answer any more.
bool Transports::Impl::go_on_answering(const std::shared_ptr<Connection>& connection) {
    const bool goes_on = !stopped && !connection->closing && answers_due && answers_due(connection->flow.connection);
    if (!goes_on) return false;
    connection->half_closed = connection->reader_done = true;
    connection->close_by = std::chrono::steady_clock::now() + limits.half_closed;
    connection->mark.set();
    forget_endpoints(*connection);
    if (closed_watcher) guarded("closed watcher", [&] { closed_watcher(connection->flow); });
    return true;
}

void Transports::Impl::end_writing(const std::shared_ptr<Connection>& connection) {
    if (std::exchange(connection->writer_done, true)) return;
    if (connection->reader_done || !connection->stream->half_close())
        connection->stream->close(false);  // the reader finishes
}

void Transports::Impl::finish(const std::shared_ptr<Connection>& connection) {
    const auto self = shared_from_this();  // a handler may destroy the Transports
    connection->stream->close(false);
    if (connections.erase(connection->flow.connection) == 0) return;
    ++counters->connections_closed;
    leave_place(*connection);
    if (closed_watcher) guarded("closed watcher", [&] { closed_watcher(connection->flow); });
    if (closed_handler) guarded("closed handler", [&] { closed_handler(connection->flow); });
}

}  // namespace gmgate::sip
