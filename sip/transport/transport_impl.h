// Inside of Transports, shared by transport.cpp (what is open), connection.cpp (one stream) and receive.cpp (bytes to
// messages).
#pragma once

#include <unordered_map>
#include <vector>

#include <asio/steady_timer.hpp>

#include "base/clock.h"
#include "sip/message/framer.h"
#include "sip/message/headers.h"
#include "sip/transport/fair_turns.h"
#include "sip/transport/stream.h"
#include "sip/transport/transport.h"
#include "sip/transport/udp.h"

namespace gmgate::sip {

/// One stream connection. shared_ptr because its reader and writer flows must find it after it left the table.
/// Messages of strangers in a turn of the loop: of each of their UDP sockets, and of all their streams. Enough for the
/// storm of a whole cell's phones, whose first REGISTER makes them strangers, and some ten milliseconds of work.
inline constexpr unsigned kStrangersATurn = 64;
/// Datagrams of each other UDP socket.
inline constexpr unsigned kOthersATurn = 128;

struct Connection {
    Flow flow;
    std::unique_ptr<ByteStream> stream;
    StepMark mark;  // says whether another process could go on here
    Framer framer;
    std::string queue;          // octets the stream has not been given yet
    std::size_t in_flight = 0;  // octets the writer is busy with
    bool writing = false;       // a writer flow runs
    bool dirty = false;         // listed for the next flush
    bool kept = false;
    bool closing = false;      // no longer read, found or sent to; ends when the queue is empty
    bool half_closed = false;  // the peer sends nothing more, answers are due to it: neither read nor found, but sent
                               // to until close_by
    bool reader_done = false;
    bool writer_done = false;  // our sending side has ended
    bool has_place = true;     // counts for the limits
    TimePoint begun;
    TimePoint last_message;  // or the beginning
    TimePoint close_by;      // valid while closing or half closed

    std::size_t queued() const { return queue.size() + in_flight; }
    /// Clears the mark when nothing is held on either side. A connection that is closing is never gone on with.
    void settle() const {
        if (!closing && !half_closed && framer.is_empty() && queued() == 0) mark.clear();
    }
};

struct EndpointPair {
    Endpoint local, remote;
    friend bool operator==(const EndpointPair&, const EndpointPair&) = default;
};
struct EndpointPairHash {
    std::size_t operator()(const EndpointPair& p) const noexcept {
        return std::hash<Endpoint>{}(p.local) * 1000003 ^ std::hash<Endpoint>{}(p.remote);
    }
};

/// A connection attempt that several callers may wait for.
struct PendingConnect {
    explicit PendingConnect(const asio::any_io_executor& executor) : done(executor, TimePoint::max()) {}
    asio::steady_timer done;  // cancelled when `result` is there
    std::optional<Result<Flow>> result;
};

/// So many events per second, of which one second's worth may come at once.
class RateLimit {
public:
    explicit RateLimit(std::uint32_t per_second) : per_second_(per_second), left_(per_second) {}
    bool allow(TimePoint now);

private:
    double per_second_, left_;
    TimePoint last_{};
};

struct Transports::Impl : std::enable_shared_from_this<Transports::Impl> {
    Impl(asio::any_io_executor e, TransportLimits l)
        : executor(std::move(e)), limits(l), sweeper(executor), bad_requests(l.bad_requests_per_second) {}

    // transport.cpp: what is open
    Result<void> listen(const Endpoint& local, ListenOptions options);
    void accept(FileDescriptor socket, const Endpoint& local, const Endpoint& remote, Mark mark, bool report_mark);
    static Task<Result<Flow>> connect(std::shared_ptr<Impl> self, Endpoint local, Endpoint remote,
                                      std::chrono::milliseconds timeout);
    static Task<Result<Flow>> connect_new(std::shared_ptr<Impl> self, Endpoint local, Endpoint remote,
                                          std::chrono::milliseconds timeout);
    bool has_room_for(const Address& remote) const;
    /// Whether this source (its prefix) has all the connections that it may have.
    bool is_full(const Address& source) const;
    /// Ends strangers' connections if that is what it takes: room.cpp.
    bool make_room_for(const Address& remote);
    Standing standing(const Connection& connection) const;
    bool has_outlived(const Connection& connection, TimePoint now) const;
    void give_way(std::optional<Address> only);
    void leave_place(Connection& connection);
    /// Puts a connected stream into the table and starts to read it. The caller has checked the limits.
    Flow add(std::unique_ptr<ByteStream> stream, Flow flow);
    std::shared_ptr<Connection> find(ConnectionId id) const;
    /// Also one that is half closed.
    std::shared_ptr<Connection> find_to_send(ConnectionId id) const;
    void sweep_later();
    void sweep();
    void shutdown();
    void leave();
    FileDescriptor take_inherited(const Endpoint& local, bool is_udp);
    FileDescriptor take_prepared(Family family);

    // connection.cpp: one stream
    static Task<> read_loop(std::shared_ptr<Impl> self, std::shared_ptr<Connection> connection);
    static Task<> write_loop(std::shared_ptr<Impl> self, std::shared_ptr<Connection> connection);
    /// Queues octets; over the limit the connection is reset.
    Result<void> queue_octets(const std::shared_ptr<Connection>& connection, std::string_view bytes);
    /// `reset` drops what is queued; else the connection ends once it is written.
    void begin_close(const std::shared_ptr<Connection>& connection, bool reset);
    void flush(const std::shared_ptr<Connection>& connection);
    /// The peer has ended its sending side: with answers due our side goes on, and true comes back.
    bool go_on_answering(const std::shared_ptr<Connection>& connection);
    void forget_endpoints(const Connection& connection);
    /// Everything is written: ends our side and waits for the peer's end (until close_by), for a socket that is closed
    /// while the peer still sends answers with RST, which destroys what the peer has not read.
    void end_writing(const std::shared_ptr<Connection>& connection);
    void finish(const std::shared_ptr<Connection>& connection);

    // receive.cpp: bytes to messages
    void receive_datagram(std::string_view bytes, const Flow& flow);
    void receive_stream(const std::shared_ptr<Connection>& connection, std::string_view bytes);
    void receive_message(std::string_view bytes, const Flow& flow);
    void answer_malformed(std::string_view bytes, const ParseError& error, const Flow& flow);
    std::optional<Flow> route_reply(const Flow& received_on) const;
    /// The same for a request with that topmost Via, which says more when the answer goes back as the request came
    /// (RFC 3261 §18.2.2); null when it cannot be read.
    std::optional<Flow> route_answer(const Flow& received_on, const Via* via) const;

    Result<void> send(const Flow& flow, std::string bytes);
    void flush_later();
    void flush_all();

    struct Listener {
        std::shared_ptr<UdpSocket> udp;
        std::shared_ptr<TcpListener> tcp;
    };

    asio::any_io_executor executor;
    TransportLimits limits;
    std::shared_ptr<TransportCounters> counters =
        std::make_shared<TransportCounters>();  // shared with sockets in flight
    std::shared_ptr<ReceiveBuffers> buffers = std::make_shared<ReceiveBuffers>();
    MessageHandler message_handler;
    ClosedHandler closed_handler, closed_watcher;
    std::function<bool(ConnectionId)> answers_due;
    std::function<std::optional<Flow>(const Flow&)> reply_route;
    std::function<bool(const Flow&)> may_leave;
    std::function<MessageLimit(const Flow&)> limit_of;
    std::function<Standing(const Flow&)> standing_of;
    FairTurns strangers_turns{executor, kStrangersATurn};
    std::function<StepMark(const Flow&, int)> opened_handler;
    std::vector<FileDescriptor> inherited;
    std::vector<FileDescriptor> prepared;
    std::function<void(bool, const Flow&, std::string_view)> traffic_watcher;
    std::unordered_map<Endpoint, Listener> listeners;
    std::unordered_map<ConnectionId, std::shared_ptr<Connection>> connections;
    std::unordered_map<EndpointPair, ConnectionId, EndpointPairHash> by_endpoints;
    std::unordered_map<Address, std::size_t> per_source;  // by source prefix
    std::unordered_map<EndpointPair, std::shared_ptr<PendingConnect>, EndpointPairHash> pending;
    std::vector<std::shared_ptr<Connection>> dirty_connections;
    std::vector<std::shared_ptr<UdpSocket>> dirty_sockets;
    asio::steady_timer sweeper;
    RateLimit bad_requests;
    std::uint64_t last_id = 0;
    std::size_t connecting = 0;
    std::size_t places = 0;  // connections without those that gave way and have not ended yet
    bool sweeping = false;
    bool flush_posted = false;
    bool stopped = false;
};

}  // namespace gmgate::sip
