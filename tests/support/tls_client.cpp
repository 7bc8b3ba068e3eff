#include "tests/support/tls_client.h"

#include <csignal>
#include <stdexcept>
#include <system_error>

#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/endpoint.h"

namespace gmgate::test {

TlsClient::TlsClient(int version) : context_(SSL_CTX_new(TLS_client_method())) {
    std::signal(SIGPIPE, SIG_IGN);  // OpenSSL writes with write(2)
    SSL_CTX_set_min_proto_version(context_, version);
    SSL_CTX_set_max_proto_version(context_, version);
}

TlsClient::~TlsClient() { SSL_CTX_free(context_); }

std::unique_ptr<TlsClient::Connection> TlsClient::connect(const Namespace& network, const std::string& remote) {
    return std::make_unique<Connection>(context_, network, remote);
}

TlsClient::Connection::Connection(ssl_ctx_st* context, const Namespace& network, const std::string& remote) {
    const auto to = Endpoint::parse(remote);
    if (!to) throw std::invalid_argument("not an endpoint: " + remote);
    network.enter([&] {
        fd_ = socket(to->address.af(), SOCK_STREAM | SOCK_CLOEXEC, 0);
        sockaddr_storage address{};
        const socklen_t size = to->to_sockaddr(address);
        if (fd_ < 0 || ::connect(fd_, reinterpret_cast<const sockaddr*>(&address), size) != 0)
            throw std::system_error(errno, std::generic_category(), "connect " + remote);
    });
    ssl_ = SSL_new(context);
    SSL_set_fd(ssl_, fd_);
}

TlsClient::Connection::~Connection() {
    SSL_free(ssl_);
    close(fd_);
}

bool TlsClient::Connection::handshake() { return SSL_connect(ssl_) == 1; }

void TlsClient::Connection::write(std::string_view bytes) {
    SSL_write(ssl_, bytes.data(), static_cast<int>(bytes.size()));
}

std::string TlsClient::Connection::read_until(std::string_view text, std::size_t count) {
    std::string all;
    char buffer[4096];
    const auto seen = [&] {
        std::size_t found = 0;
        for (auto at = all.find(text); at != std::string::npos; at = all.find(text, at + text.size())) ++found;
        return found;
    };
    while (seen() < count) {
        pollfd ready{fd_, POLLIN, 0};
        if (SSL_pending(ssl_) == 0 && poll(&ready, 1, 60000) <= 0) break;
        const int size = SSL_read(ssl_, buffer, sizeof buffer);
        if (size <= 0) break;
        all.append(buffer, static_cast<std::size_t>(size));
    }
    return all;
}

void TlsClient::Connection::write_raw(std::string_view bytes) {
    (void)!::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
}

void TlsClient::Connection::close_notify() { SSL_shutdown(ssl_); }

void TlsClient::Connection::write_after_close_notify(std::string_view bytes) {
    SSL_set_shutdown(ssl_, 0);  // makes OpenSSL forget that it has said goodbye; the record numbers go on
    SSL_write(ssl_, bytes.data(), static_cast<int>(bytes.size()));
}

bool TlsClient::Connection::is_ended_by_peer() {
    char buffer[4096];
    for (;;) {
        pollfd ready{fd_, POLLIN, 0};
        if (poll(&ready, 1, 60000) <= 0) return false;
        if (recv(fd_, buffer, sizeof buffer, 0) <= 0) return true;
    }
}

void TlsClient::Connection::abort() {
    const linger reset{1, 0};
    setsockopt(fd_, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
}

}  // namespace gmgate::test
