// A loop with deadlines and a scripted peer on plain sockets, for the tests of transports and transactions.
#pragma once

#include <cerrno>
#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <doctest/doctest.h>
#include <poll.h>
#include <sys/socket.h>
#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include "sip/transaction/transactions.h"
#include "sip/transport/socket.h"
#include "sip/transport/transport.h"
#include "tests/support/own_network.h"

namespace gmgate::sip::test {

using namespace std::chrono_literals;

inline Address loopback(Family family) { return *Address::parse(family == Family::v4 ? "127.0.0.1" : "::1"); }

/// An endpoint on the loopback whose port is free for UDP and TCP, and stays free.
inline Endpoint free_endpoint(Family family) { return {loopback(family), gmgate::test::fresh_port()}; }

struct Loop {
    asio::io_context io;

    /// Runs handlers until the condition holds; false when the deadline passes first.
    template <class Condition>
    bool until(Condition condition, std::chrono::milliseconds deadline = 60s) {
        const auto end = std::chrono::steady_clock::now() + deadline;
        while (!condition()) {
            if (std::chrono::steady_clock::now() >= end) return false;
            io.restart();
            io.run_one_for(1ms);
        }
        return true;
    }
    /// Runs a coroutine to its end and returns its value.
    template <class T>
    T get(Task<T> task) {
        std::optional<T> result;
        start(std::move(task), [&](T value) { result.emplace(std::move(value)); });
        REQUIRE(until([&] { return result.has_value(); }));
        return std::move(*result);
    }
    /// Starts a coroutine; `handler` gets its value.
    template <class T, class F>
    void start(Task<T> task, F handler) {
        asio::co_spawn(io, finish(std::move(task), std::move(handler)), [](const std::exception_ptr& e) { CHECK(!e); });
    }
    /// Runs what is ready and what becomes ready in that time: to see that something does *not* happen.
    void drain(std::chrono::milliseconds time) {
        until([] { return false; }, time);
    }

private:
    template <class T, class F>
    static Task<> finish(Task<T> task, F handler) {
        handler(co_await std::move(task));
    }
};

/// The other side: one UDP socket or one TCP connection, scripted by the test.
class Peer {
public:
    /// On a port that is free for TCP, too.
    static Peer udp(Loop& loop, Family family) { return udp(loop, loopback(family)); }
    static Peer udp(Loop& loop, const Address& address) {
        auto fd = open_udp_socket({address, gmgate::test::fresh_port()}, false);
        REQUIRE(fd.has_value());
        return Peer(loop, std::move(*fd));
    }
    static Peer tcp(Loop& loop, const Endpoint& to) {
        auto fd = open_connecting_socket({loopback(to.address.family()), Port(0)}, to);
        REQUIRE(fd.has_value());
        return Peer(loop, std::move(*fd));
    }
    /// Waits for a connection on a listening socket.
    static Peer accept(Loop& loop, const FileDescriptor& listener) {
        FileDescriptor fd;
        REQUIRE(loop.until([&] {
            fd = FileDescriptor(::accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
            return fd.is_open();
        }));
        return Peer(loop, std::move(fd));
    }

    Endpoint endpoint() const { return local_endpoint_of(fd_.get()); }
    int fd() const { return fd_.get(); }
    void close() { fd_.close(); }
    void reset() {
        close_by_reset(fd_.get());
        fd_.close();
    }

    void send(std::string_view bytes, const Endpoint& to) {
        sockaddr_storage address{};
        const socklen_t length = to.to_sockaddr(address);
        CHECK(::sendto(fd_.get(), bytes.data(), bytes.size(), 0, reinterpret_cast<const sockaddr*>(&address), length) ==
              static_cast<ssize_t>(bytes.size()));
    }
    /// On a stream.
    void send(std::string_view bytes) {
        REQUIRE(loop_->until([&] {
            const ssize_t count = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
            if (count > 0) bytes.remove_prefix(static_cast<std::size_t>(count));
            return bytes.empty();
        }));
    }
    /// What is there now; "" at the end of a stream.
    std::optional<std::string> try_receive() {
        std::string bytes(65536, '\0');
        const ssize_t count = ::recv(fd_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
        if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR || errno == ENOTCONN))
            return std::nullopt;
        bytes.resize(count > 0 ? static_cast<std::size_t>(count) : 0);
        return bytes;
    }
    /// The next datagram, or the next bytes of a stream.
    std::string receive() {
        std::optional<std::string> bytes;
        CHECK(loop_->until([&] { return (bytes = try_receive()).has_value(); }));
        return bytes.value_or("");
    }
    /// All bytes of a stream until it ends.
    std::string receive_all() {
        std::string all;
        for (auto bytes = receive(); !bytes.empty(); bytes = receive()) all += bytes;
        return all;
    }

private:
    Peer(Loop& loop, FileDescriptor fd) : loop_(&loop), fd_(std::move(fd)) {}
    Loop* loop_;
    FileDescriptor fd_;
};

struct RequestText {
    std::string method = "OPTIONS";
    std::string branch = "z9hG4bKone";
    std::string sent_by = "ue.example.com";
    std::string transport = "UDP";
    std::string to_tag = {};
    std::string body = {};
};

inline std::string request_text(const RequestText& r) {
    return r.method + " sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/" + r.transport + " " + r.sent_by +
           (r.branch.empty() ? "" : ";branch=" + r.branch) +
           "\r\nMax-Forwards: 70\r\nRoute: <sip:orig@scscf.example.com;lr>\r\n" +
           "From: <sip:alice@example.com>;tag=a1\r\nTo: <sip:bob@example.com>" +
           (r.to_tag.empty() ? "" : ";tag=" + r.to_tag) + "\r\nCall-ID: c1@ue\r\nCSeq: 7 " + r.method +
           "\r\nContent-Length: " + std::to_string(r.body.size()) + "\r\n\r\n" + r.body;
}

/// A response to the request with these bytes, as a peer makes it by hand.
inline std::string response_text(std::string_view request, int status, std::string_view to_tag = "b1") {
    const auto message = OwnedMessage::parse(request);
    REQUIRE(message.has_value());
    std::string out = "SIP/2.0 " + std::to_string(status) + " Text\r\n";
    const Message& m = **message;
    m.for_each(HeaderId::via, [&](const HeaderField& f) { out += "Via: " + std::string(f.value) + "\r\n"; });
    std::string route;  // RFC 3261 §12.1.1
    out += "From: " + std::string(m.value(HeaderId::from)) + "\r\nTo: " + std::string(m.value(HeaderId::to));
    m.for_each(HeaderId::record_route,
               [&](const HeaderField& f) { route += "Record-Route: " + std::string(f.value) + "\r\n"; });
    if (!to_tag.empty() && m.value(HeaderId::to).find("tag=") == std::string_view::npos)
        out += ";tag=" + std::string(to_tag);
    out += "\r\n" + route + "Call-ID: " + std::string(m.value(HeaderId::call_id)) +
           "\r\nCSeq: " + std::string(m.value(HeaderId::cseq)) + "\r\nContent-Length: 0\r\n\r\n";
    return out;
}

}  // namespace gmgate::sip::test
