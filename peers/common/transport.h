// UDP sockets, TCP and TLS connections and TCP listeners that speak in whole SIP messages.
#pragma once

#include "endpoint.h"
#include "framer.h"
#include "loop.h"
#include "tls.h"

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

namespace gmgate::peers {

/// A bound UDP socket.
class UdpPort {
public:
    using Receive = std::function<void(std::string text, const Endpoint& from)>;
    /// Binds to the local address; port 0 takes any free one.
    [[nodiscard]] static Result<std::unique_ptr<UdpPort>> open(Loop& loop, const Endpoint& local, Receive receive);
    [[nodiscard]] Result<void> send(std::string_view text, const Endpoint& to);
    [[nodiscard]] const Endpoint& local() const { return local_; }

private:
    UdpPort() = default;
    void on_readable();
    Fd fd_;
    Endpoint local_;
    Receive receive_;
    Watch watch_;
};

/// One TCP connection, with TLS over it when a context is given. The callbacks may destroy the connection only later
/// (through a Timer), not while they run.
class TcpConnection {
public:
    struct Events {
        std::function<void(TcpConnection&, std::string text)> message;
        std::function<void(TcpConnection&, std::string reason)> closed;  ///< also when a connection attempt failed
    };
    /// Connects from the local address (port 0: any) without waiting; what is sent before it stands is kept.
    [[nodiscard]] static Result<std::unique_ptr<TcpConnection>> connect(
        Loop& loop, const Endpoint& local, const Endpoint& remote, Events events,
        std::shared_ptr<const TlsContext> tls = nullptr);
    [[nodiscard]] static Result<std::unique_ptr<TcpConnection>> adopt(Loop& loop, Fd fd, Events events,
                                                                      std::shared_ptr<const TlsContext> tls = nullptr);
    /// Ends with a reset, so that the four-tuple is free at once: protected ports are few and reused. TLS ends with
    /// close_notify and FIN.
    ~TcpConnection();

    void send(std::string_view text);
    [[nodiscard]] const Endpoint& local() const { return local_; }
    [[nodiscard]] const Endpoint& remote() const { return remote_; }
    [[nodiscard]] bool is_open() const { return open_; }
    /// Version and suite once the handshake is done; empty without TLS.
    [[nodiscard]] std::string protection() const { return tls_ ? tls_->protection() : std::string(); }

private:
    TcpConnection() = default;
    void start(Loop& loop);
    void on_ready(Loop::Ready ready);
    void secure(std::shared_ptr<const TlsContext> tls);
    void go_on_with_handshake();
    void flush();
    void read_all();
    /// Bytes moved, or nothing when the socket has to be waited for or the connection was closed on the way.
    [[nodiscard]] std::optional<std::size_t> read_some(std::span<char> buffer);
    [[nodiscard]] std::optional<std::size_t> write_some(std::string_view bytes);
    void close(std::string reason);

    Fd fd_;
    std::unique_ptr<TlsSession> tls_;
    bool secured_ = true;  ///< false while the TLS handshake is under way
    Endpoint local_;
    Endpoint remote_;
    Events events_;
    StreamFramer framer_;
    std::string out_;
    bool connected_ = false;
    bool open_ = true;
    Watch watch_;
};

/// A listening TCP socket.
class TcpListener {
public:
    using Accept = std::function<void(Fd fd, const Endpoint& from)>;
    [[nodiscard]] static Result<std::unique_ptr<TcpListener>> open(Loop& loop, const Endpoint& local, Accept accept);
    [[nodiscard]] const Endpoint& local() const { return local_; }

private:
    TcpListener() = default;
    Fd fd_;
    Endpoint local_;
    Accept accept_;
    Watch watch_;
};

/// Raises the limit of open files to what the process may have; returns the limit in force.
std::size_t raise_file_limit();

}  // namespace gmgate::peers
