// One end of Diameter over TCP: accepts connections, does the base protocol on them (RFC 6733 §5) and hands the rest
// on.
#pragma once

#include "diameter.h"

#include "../common/loop.h"
#include "../common/message_log.h"
#include "../common/transport.h"

#include <functional>
#include <map>
#include <memory>

namespace gmgate::peers::diameter {

/// Origin-Host and Origin-Realm of this end.
struct Identity {
    std::string host;
    std::string realm;
};

/// One connection; closed for good once its peer, or what it sent, ended it.
class Connection {
public:
    struct Events {
        std::function<void(Connection&, Message)> message;
        std::function<void(Connection&, std::string reason)> closed;
    };
    Connection(Loop& loop, Fd fd, Endpoint remote, Events events);
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;

    void send(const Message& message);
    /// Sends what is left, then ends the connection.
    void finish();
    [[nodiscard]] const Endpoint& remote() const { return remote_; }
    [[nodiscard]] const Endpoint& local() const { return local_; }
    [[nodiscard]] bool is_open() const { return open_; }
    /// Origin-Host of the peer, known from its Capabilities-Exchange-Request on.
    std::string host;
    std::string realm;

private:
    void on_ready(Loop::Ready ready);
    void read_all();
    void flush();
    void close(std::string reason);

    Fd fd_;
    Endpoint remote_;
    Endpoint local_;
    Events events_;
    MessageFramer framer_;
    Bytes out_;
    bool finishing_ = false;
    bool open_ = true;
    Watch watch_;
};

/// Accepts peers of any name: this is for labs. Single-threaded; lives as long as the loop runs.
class Node {
public:
    /// Answers a request of an application; the node adds Origin-Host and Origin-Realm.
    using Handler = std::function<Message(const Message& request)>;
    /// The answer, or the reason why there is none.
    using Answered = std::function<void(Result<Message> answer)>;

    Node(Loop& loop, Identity self, MessageLog& log, Handler handler);
    /// Returns where it listens: with port 0 any port is taken.
    [[nodiscard]] Result<Endpoint> listen(const Endpoint& local);
    /// Sends a request to the connected peer of that Origin-Host. Session-Id, Origin-*, Destination-* are added.
    /// `answered` is called once: at once when the peer is not connected, after ten seconds without an answer.
    void request(const std::string& host, Message message, Answered answered);

private:
    struct Pending {
        Connection* connection;
        Answered answered;
        Timer timer;
    };

    void accept(Fd fd, const Endpoint& from);
    void on_message(Connection& connection, Message message);
    void on_request(Connection& connection, const Message& request);
    void on_closed(Connection& connection, const std::string& reason);
    void settle(std::uint32_t hop_by_hop, Result<Message> answer);
    [[nodiscard]] Message capabilities(Connection& connection, const Message& request) const;
    void add_origin(Message& message) const;

    Loop& loop_;
    Identity self_;
    MessageLog& log_;
    Handler handler_;
    std::vector<std::unique_ptr<TcpListener>> listeners_;
    std::map<Connection*, std::unique_ptr<Connection>> connections_;
    std::map<std::uint32_t, Pending> pending_;
    std::uint32_t next_id_;
    std::map<Connection*, Timer> burials_;  ///< closed connections end outside their own callbacks
};

}  // namespace gmgate::peers::diameter
