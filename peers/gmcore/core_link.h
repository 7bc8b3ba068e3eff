// gmcore's sockets: UDP and TCP (or TLS, when it has a certificate) on every --listen address, one way in, two ways out
// (answer where it came from, or send to an address).
#pragma once

#include "../common/message_log.h"
#include "../common/sip_message.h"
#include "../common/transport.h"

#include <functional>
#include <map>
#include <memory>
#include <vector>

namespace gmgate::peers {

/// Where a message came from.
struct Origin {
    bool tcp = false;
    Endpoint local;
    Endpoint remote;
    std::uint64_t connection = 0;  ///< TCP only
};

class CoreLink {
public:
    using Handler = std::function<void(SipMessage message, const Origin& origin)>;

    CoreLink(Loop& loop, MessageLog& log, Handler handler) : loop_(loop), log_(log), handler_(std::move(handler)) {}
    /// From now on every stream connection is TLS, those that come and those that are opened.
    void use_tls(std::shared_ptr<const TlsContext> server, std::shared_ptr<const TlsContext> client);
    /// What stream connections are in Via: "TCP" or "TLS".
    [[nodiscard]] std::string_view stream_name() const { return server_tls_ ? "TLS" : "TCP"; }
    /// What a URI of ours says of a transport: "", ";transport=tcp", ";transport=tls".
    [[nodiscard]] std::string_view uri_transport(bool tcp) const {
        return !tcp ? "" : server_tls_ ? ";transport=tls" : ";transport=tcp";
    }
    /// Opens UDP and TCP on that address and port.
    [[nodiscard]] Result<void> listen(const Endpoint& local);

    /// Sends to an address; TCP reuses a connection to it or opens one.
    void send(const SipMessage& message, bool tcp, const Endpoint& to);
    /// Sends over the connection with that number; false when it is gone.
    [[nodiscard]] bool send_on(std::uint64_t connection, const SipMessage& message);
    /// Sends a response by its topmost Via (RFC 3261 §18.2.2), over the connection that the request came in on when
    /// that still stands.
    void respond(const SipMessage& response, const Origin& origin);

    /// Our address towards a peer: the first listening address of its family, or nothing.
    [[nodiscard]] std::optional<Endpoint> address_towards(const Endpoint& peer) const;
    [[nodiscard]] bool is_own(const Endpoint& address) const;
    [[nodiscard]] const std::vector<Endpoint>& addresses() const { return addresses_; }

private:
    struct Connection {
        std::unique_ptr<TcpConnection> tcp;
        bool outgoing = false;
    };
    void receive(std::string text, const Origin& origin);
    [[nodiscard]] TcpConnection::Events events_for(std::uint64_t id);
    void forget_later(std::uint64_t id);
    void transmit(TcpConnection& connection, const std::string& text);

    [[nodiscard]] const char* log_name(bool tcp) const { return !tcp ? "udp" : server_tls_ ? "tls" : "tcp"; }

    Loop& loop_;
    MessageLog& log_;
    Handler handler_;
    std::shared_ptr<const TlsContext> server_tls_;  ///< shared with the connections
    std::shared_ptr<const TlsContext> client_tls_;
    std::vector<Endpoint> addresses_;
    std::vector<std::unique_ptr<UdpPort>> udp_;
    std::vector<std::unique_ptr<TcpListener>> listeners_;
    std::map<std::uint64_t, Connection> connections_;
    std::uint64_t next_connection_ = 1;
    std::vector<std::uint64_t> dead_;
    Timer sweep_;
};

/// Where a response goes by its topmost Via: received and rport, else sent-by.
struct ViaTarget {
    bool tcp = false;
    Endpoint to;
};
[[nodiscard]] Result<ViaTarget> via_target(const SipMessage& response);

}  // namespace gmgate::peers
