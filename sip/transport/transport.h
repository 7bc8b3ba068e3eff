// Datagrams and byte streams that carry SIP, as one vocabulary: a Flow is the way a message came and the way back.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <asio/any_io_executor.hpp>

#include "base/endpoint.h"
#include "base/error.h"
#include "base/step_mark.h"
#include "base/task.h"
#include "sip/message/message.h"
#include "sip/transport/socket.h"

namespace gmgate::sip {

struct TransactionCore;

enum class Transport : std::uint8_t { udp, tcp, tls };
std::string_view to_string(Transport transport);  ///< "UDP", as in Via
bool is_reliable(Transport transport);

/// Names one stream connection for the life of the process; never re-used. 0 = none (UDP).
using ConnectionId = Distinct<std::uint64_t, struct ConnectionIdTag>;

/// Local and remote end of a message's way. For a received message `local` is the address and port it was sent to
/// (never a wildcard) and `mark` what the kernel reported of the inbound SA (0 = none). To send on a Flow of UDP the
/// socket bound to `local` is used.
struct Flow {
    Transport transport = Transport::udp;
    Endpoint local;
    Endpoint remote;
    ConnectionId connection;
    Mark mark;
    friend bool operator==(const Flow&, const Flow&) = default;
};

/// What protects a stream, in words for an operator.
struct Protection {
    std::string version;  ///< "TLSv1.3"
    std::string cipher;   ///< "AES-128-GCM"
    bool resumed = false;
    std::string carried_by;  ///< "the kernel"
};

/// A byte stream as the SIP layer needs it: a TCP socket here; a TLS connection is fitted to this interface by the
/// gateway.
class ByteStream {
public:
    virtual ~ByteStream() = default;
    /// Appends up to a buffer's worth of bytes to `out`; 0 bytes = orderly end.
    virtual Task<Result<std::size_t>> read(std::string& out) = 0;
    virtual Task<Result<void>> write(std::string_view bytes) = 0;
    /// Writes what can be written without waiting and tells how much that was; a stream that cannot tell writes
    /// nothing. Never called while a write() is pending.
    virtual std::size_t write_now(std::string_view bytes);
    /// Ends our sending side only, so that the peer can read everything before the end; false when the stream has no
    /// such thing.
    virtual bool half_close();
    /// Ends pending reads and writes with an error, which they see in a later turn of the loop. `reset`: RST instead of
    /// FIN (linger 0), so that a port pair is free at once.
    virtual void close(bool reset) = 0;
    /// A socket that another process could go on with, as the stream's; -1: this stream cannot be handed over. Stays
    /// the stream's.
    virtual int native_handle() const { return -1; }
    /// Nothing: the bytes are in clear.
    virtual std::optional<Protection> protection() const { return std::nullopt; }
    /// To be set before bytes are taken from the socket; set again by the stream itself only. See StepMark.
    virtual void set_step_mark(StepMark) {}
};

/// What is known of the peer at the other end of a stream.
enum class Standing : std::uint8_t {
    known,    ///< its connection stays as long as it likes
    around,   ///< a stranger at an address where somebody is known: gives way last
    unknown,  ///< a stranger
};

struct TransportLimits {
    std::size_t connections = 65536;  ///< stream connections in total
    std::size_t connections_per_address =
        1024;                                 ///< of one IPv4 address or IPv6 /64; carrier NAT puts many phones there
    std::size_t write_queue_octets = 262144;  ///< per connection; beyond it the connection is closed and counted
    std::chrono::seconds unbound_idle{60};    ///< a stream connection that nobody keeps (see keep_open) is closed after
                                              ///< this time without a whole message either way
    std::chrono::seconds stranger_lifetime{
        300};  ///< a stranger's connection (see set_standing) ends after this time, however busy it is; 0: it does not
    std::chrono::seconds half_closed{
        32};  ///< a peer that has ended its sending side gets the answers due to it for so long (64*T1)
    std::chrono::seconds user_timeout{10};  ///< TCP_USER_TIMEOUT; also how long a closing connection may take to flush
    std::uint32_t bad_requests_per_second =
        100;  ///< 400s to bytes that are no SIP, of the whole process; beyond it they are only counted
};

struct TransportCounters {
    std::uint64_t datagrams_in = 0, datagrams_out = 0, datagrams_not_sent = 0, receive_calls = 0, send_calls = 0;
    std::uint64_t messages_in = 0, messages_not_sent = 0, malformed = 0, too_large = 0, keep_alives = 0,
                  stun_requests = 0;
    std::uint64_t connections_opened = 0, connections_accepted = 0, connections_refused_limit = 0,
                  connections_closed = 0, connections_gave_way = 0, connections_outlived = 0, write_queue_overflows = 0;
    std::uint64_t bad_requests_answered = 0;
};

/// What to open at an endpoint.
struct ListenOptions {
    bool udp = true;
    bool tcp = true;
    /// Report the packet mark of each datagram (SO_RCVMARK) and of each accepted connection (SO_MARK with
    /// tcp_fwmark_accept).
    bool report_mark = false;
    /// Asked of each datagram and each new TCP connection before anything of it is read: false, and it is dropped, the
    /// connection by RST. Empty: everybody may come.
    std::function<bool(const Endpoint& remote)> admits{};
    /// Anybody may send here: few datagrams are taken in a turn of the loop, so that what registered phones and the
    /// core send is taken beside any flood, which overflows in the kernel instead.
    bool gives_way = false;
};

/// All sockets of the process, one loop, one thread. UDP by recvmmsg/sendmmsg; TCP framed; double CRLF and STUN binding
/// requests answered (RFC 5626 §3.5, §4.4); bytes that are no SIP get 400 when answerable and are counted otherwise.
class Transports {
public:
    using MessageHandler = std::function<void(OwnedMessage, Flow)>;
    using ClosedHandler = std::function<void(const Flow&)>;

    Transports(asio::any_io_executor executor, TransportLimits limits);
    ~Transports();

    /// Opens UDP and/or TCP sockets at `local` (a concrete address). Error names endpoint, transport and reason.
    Result<void> listen(const Endpoint& local, ListenOptions options);
    /// Closes the sockets at `local` and its connections.
    void close_listener(const Endpoint& local);

    void on_message(MessageHandler handler);
    /// Called once when a stream connection has ended, whoever ended it.
    void on_closed(ClosedHandler handler);
    /// Where answers go that this layer and the transactions make by themselves (400, 503); nullopt = give none.
    /// Default: back on the flow. On protected ports the way back of UDP is port_pc → port_us (B-15), which only the
    /// gateway knows.
    void set_reply_route(std::function<std::optional<Flow>(const Flow&)> route);
    std::optional<Flow> reply_route(const Flow& received_on) const;

    /// Asked before each message leaves; false: it is not sent, counted as messages_not_sent, and send() fails with
    /// Reaction::broken. On a protected port the kernel swallows a datagram without an SA and reports success, so only
    /// the gateway can know. Default: all.
    void set_gate(std::function<bool(const Flow&)> may_leave);
    /// How large a message may be that comes this way; asked when its bytes come. Larger ones get 513, are counted as
    /// too_large and malformed, and end a stream. Default: kMaxMessage.
    void set_message_limit(std::function<MessageLimit(const Flow&)> limit_of);
    /// Who is at the other end of a stream. A stranger's connection ends after stranger_lifetime, and when a limit of
    /// connections is reached those longest without a message give way. Default: everybody is known.
    void set_standing(std::function<Standing(const Flow&)> standing_of);
    /// Shows every message as it is received (whole, and SIP) or queued for sending. `outward`: towards flow.remote.
    /// For an operator's trace; it must not send. Empty: none, which costs nothing.
    void on_traffic(std::function<void(bool outward, const Flow&, std::string_view bytes)> watcher);

    /// Queues a message. UDP: on the socket bound to flow.local; stream: on flow.connection. Errors: no such socket or
    /// connection (Reaction::broken), queue full (exhausted), and on a stream a message without the one Content-Length
    /// that is its body's (internal): the peer would read the body as the next message, or close a connection that
    /// others use, too. UDP success means "given to the kernel queue", not "sent under ESP".
    Result<void> send(const Flow& flow, std::string bytes);
    /// Gives the queues to the kernel now instead of at the end of the loop's turn, as far as the sockets take them:
    /// before the SAs under a last message are deleted.
    void flush();
    /// Opens a TCP connection from exactly `local` (port 0 = any) to `remote`; the Flow has the new connection's id.
    /// Between two full endpoints there is one connection: a live one is returned, and an attempt under way is joined.
    /// Reaction::broken: refused, timed out, or the four-tuple is still in TIME_WAIT (text says which); exhausted: a
    /// limit.
    Task<Result<Flow>> connect_tcp(Endpoint local, Endpoint remote, std::chrono::milliseconds timeout);
    /// Whether the limits allow one more connection with that peer, after strangers have given way if need be; ask
    /// before a TLS handshake is begun.
    bool make_room_for(const Address& remote);
    /// Adopts a stream that is connected already (TLS after its handshake). At a limit it is closed and counted, and
    /// the Flow that comes back has no connection (0). Kept open or not, it is read from the next turn of the loop on.
    Flow adopt(std::unique_ptr<ByteStream> stream, Flow flow);
    /// A live connection between exactly these endpoints; nullopt when there is none.
    std::optional<Flow> find_connection(const Endpoint& local, const Endpoint& remote) const;
    bool is_open(ConnectionId connection) const;
    /// Open, or ended by the peer in its own direction only while answers are due there: send() takes them, and nothing
    /// else should go over it.
    bool can_answer(ConnectionId connection) const;
    /// Nothing when it is in clear, ended or ending.
    std::optional<Protection> protection(ConnectionId connection) const;
    /// While kept, a connection is not closed for being idle (a registered phone's).
    void keep_open(ConnectionId connection, bool keep);
    void close(ConnectionId connection, bool reset);
    /// Closes everything; pending sends are flushed as far as the sockets take them.
    void shutdown();

    /// Sockets of prepare_udp_socket() for the UDP ports that listen() opens from now on, as long as there are any; an
    /// empty list drops those that are left.
    void prepare(std::vector<FileDescriptor> sockets);

    // ---- from process to process
    /// A UDP or listening socket of the process before. The next listen() at its endpoint takes it instead of opening
    /// one; what waited in it is not lost. Those that nobody wanted come back by take_unused().
    void inherit(FileDescriptor socket);
    std::vector<FileDescriptor> take_unused();
    /// Puts a stream of the process before into the table under its old id; it is read from the next turn of the loop
    /// on. No limit holds here: it was counted there.
    Flow resume(std::unique_ptr<ByteStream> stream, Flow flow);
    /// The same for a connected TCP socket. Reaction::broken: it is no connection any more.
    Result<Flow> resume_tcp(FileDescriptor socket, ConnectionId id);
    /// Ids up to this one were given out by the process before.
    void continue_ids_after(ConnectionId id);
    /// Called once for each connection when it is opened, accepted, adopted or resumed, with its native_handle(). The
    /// mark that comes back is kept true: set while a part of a message is held here or is being read or written.
    void on_opened(std::function<StepMark(const Flow&, int)> handler);
    /// Every UDP and listening socket that is open.
    void for_each_socket(const std::function<void(const Endpoint&, bool is_udp, int descriptor)>& f) const;
    /// Gives the queues to the kernel and stops, without a word to the peers: the sockets live on in another process.
    /// What is still queued then is lost, and its connection marked.
    void leave();

    const TransportCounters& counters() const;
    std::size_t connection_count() const;

private:
    friend class Transactions;
    friend struct TransactionCore;
    /// Transactions learn of an ended connection before on_closed is called.
    void watch_closed(ClosedHandler watcher);
    /// Asked when a peer has ended its sending side: whether answers are due over that connection. It ends with
    /// all_answered().
    void set_answers_due(std::function<bool(ConnectionId)> answers_due);
    void all_answered(ConnectionId connection);
    struct Impl;
    std::shared_ptr<Impl> impl_;  // shared with pending completion handlers, which must outlive a shutdown
};

}  // namespace gmgate::sip
