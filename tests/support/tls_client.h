// TLS connections by the thousand from inside a namespace, each dropped at a stage of its life: OpenSSL in this
// process, no kernel TLS.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "tests/support/netns.h"

struct ssl_st;
struct ssl_ctx_st;

namespace gmgate::test {

/// Settings of many connections. No certificate is checked.
class TlsClient {
public:
    /// `version`: 0x0303 or 0x0304.
    explicit TlsClient(int version);
    ~TlsClient();
    TlsClient(const TlsClient&) = delete;
    TlsClient& operator=(const TlsClient&) = delete;

    class Connection {
    public:
        Connection(ssl_ctx_st* context, const Namespace& network, const std::string& remote);
        ~Connection();
        Connection(const Connection&) = delete;
        Connection& operator=(const Connection&) = delete;
        /// Whole handshake, waiting for it; false when the other side ends it.
        bool handshake();
        void write(std::string_view bytes);
        /// Reads until `text` has come `count` times; what has come when the other side ends or says nothing for a
        /// minute.
        std::string read_until(std::string_view text, std::size_t count = 1);
        /// Bytes beneath TLS, as they are.
        void write_raw(std::string_view bytes);
        /// close_notify, and writing goes on being possible beneath (see write_after_close_notify).
        void close_notify();
        /// An application data record under the right keys after close_notify: what no honest peer sends.
        void write_after_close_notify(std::string_view bytes);
        /// Whether the other side ends the connection within a minute.
        bool is_ended_by_peer();
        /// The next close resets.
        void abort();
        int fd() const { return fd_; }

    private:
        int fd_ = -1;
        ssl_st* ssl_ = nullptr;
    };
    /// A connected TCP socket; throws when that fails. "10.1.0.1:5061"
    std::unique_ptr<Connection> connect(const Namespace& network, const std::string& remote);

private:
    ssl_ctx_st* context_ = nullptr;
};

}  // namespace gmgate::test
