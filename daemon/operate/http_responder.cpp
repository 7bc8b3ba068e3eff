#include "daemon/operate/http_responder.h"

#include <fmt/format.h>
#include <asio/ip/tcp.hpp>
#include <asio/read_until.hpp>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>
#include <asio/write.hpp>

#include "base/log.h"
#include "base/reserve_descriptor.h"
#include "base/spawn.h"

namespace gmgate::daemon {
namespace {

using asio::ip::tcp;

const char* phrase_of(int status) {
    switch (status) {
        case 200:
            return "OK";
        case 400:
            return "Bad Request";
        case 404:
            return "Not Found";
        case 405:
            return "Method Not Allowed";
        case 431:
            return "Request Header Fields Too Large";
        case 503:
            return "Service Unavailable";
        default:
            return "Error";
    }
}

}  // namespace

std::expected<std::string, HttpAnswer> requested_path(std::string_view line) {
    const auto wrong = [](int status, const char* text) {
        return std::unexpected(HttpAnswer{status, "text/plain; charset=utf-8", text});
    };
    const auto method_end = line.find(' ');
    if (method_end == std::string_view::npos) return wrong(400, "no request line\n");
    const auto method = line.substr(0, method_end);
    line.remove_prefix(method_end + 1);
    const auto path_end = line.find(' ');
    if (path_end == std::string_view::npos || !line.substr(path_end + 1).starts_with("HTTP/1."))
        return wrong(400, "not HTTP/1\n");
    if (method != "GET" && method != "HEAD") return wrong(405, "only GET\n");
    const auto path = line.substr(0, path_end);
    return std::string(path.substr(0, path.find('?')));
}

struct HttpResponder::Impl {
    Impl(asio::any_io_executor e, HttpSettings s) : executor(std::move(e)), settings(s), acceptor(executor) {}
    // `keep`: a coroutine may begin after the responder is gone.
    /// A client's, given back also when serving it throws.
    struct Place {
        explicit Place(Impl& of) : impl(of) { ++impl.clients; }
        ~Place() { --impl.clients; }
        Place(const Place&) = delete;
        Place& operator=(const Place&) = delete;
        Impl& impl;
    };
    Task<void> accept(std::shared_ptr<Impl> keep);
    Task<void> serve(std::shared_ptr<Impl> keep, std::shared_ptr<tcp::socket> socket);

    asio::any_io_executor executor;
    HttpSettings settings;
    tcp::acceptor acceptor;
    std::map<std::string, Handler> handlers;
    HttpCounters counters;
    std::size_t clients = 0;
    ReserveDescriptor reserve;
};

Task<void> HttpResponder::Impl::accept([[maybe_unused]] std::shared_ptr<Impl> keep) {
    while (acceptor.is_open()) {
        reserve.take();  // when its last user has gone
        asio::error_code error;
        auto socket = std::make_shared<tcp::socket>(executor);  // shared with the timer that ends it
        co_await acceptor.async_accept(*socket, asio::redirect_error(asio::use_awaitable, error));
        if (!acceptor.is_open()) co_return;
        reserve.accept_again(acceptor, *socket, error);
        if (error) {
            asio::steady_timer pause(executor, std::chrono::milliseconds{100});
            co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, error));
            continue;
        }
        if (clients >= settings.clients) {
            ++counters.refused;
            continue;  // closes it
        }
        spawn(executor, serve(keep, socket), "http");
    }
}

Task<void> HttpResponder::Impl::serve([[maybe_unused]] std::shared_ptr<Impl> keep,
                                      std::shared_ptr<tcp::socket> socket) {
    const Place place(*this);
    asio::steady_timer limit(executor, settings.patience);
    limit.async_wait([weak = std::weak_ptr(socket)](const asio::error_code& cancelled) {
        asio::error_code ignored;
        if (const auto late = weak.lock(); late && !cancelled) late->close(ignored);
    });
    std::string request;
    asio::error_code error;
    co_await asio::async_read_until(*socket, asio::dynamic_buffer(request, settings.request_octets), "\r\n\r\n",
                                    asio::redirect_error(asio::use_awaitable, error));
    HttpAnswer answer;
    bool only_head = false;
    if (error == asio::error::not_found) {
        answer = {431, "text/plain; charset=utf-8", "the request is too long\n"};
    } else if (!error) {
        const auto path = requested_path(std::string_view(request).substr(0, request.find("\r\n")));
        only_head = request.starts_with("HEAD ");
        const auto handler = path ? handlers.find(*path) : handlers.end();
        if (!path) answer = path.error();
        else if (handler == handlers.end())
            answer = {404, "text/plain; charset=utf-8", "here are /metrics, /healthz and /readyz\n"};
        else answer = co_await handler->second();
    }
    if (!error || error == asio::error::not_found) {
        ++counters.requests;
        const std::string text = fmt::format(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n{}",
            answer.status, phrase_of(answer.status), answer.content_type, answer.body.size(),
            only_head ? std::string{} : answer.body);
        co_await asio::async_write(*socket, asio::buffer(text), asio::redirect_error(asio::use_awaitable, error));
        socket->shutdown(tcp::socket::shutdown_send, error);
    }
    limit.cancel();
    socket->close(error);
    reserve.take();  // at once: others wait for a descriptor, too
}

HttpResponder::HttpResponder(asio::any_io_executor executor, HttpSettings settings)
    : impl_(std::make_shared<Impl>(std::move(executor), settings)) {}
HttpResponder::~HttpResponder() { close(); }
void HttpResponder::add(std::string path, Handler handler) {
    impl_->handlers.insert_or_assign(std::move(path), std::move(handler));
}
const HttpCounters& HttpResponder::counters() const { return impl_->counters; }

Result<void> HttpResponder::open() {
    const auto& listen = impl_->settings.listen;
    asio::error_code error;
    const auto wrong = [&] {
        return system_failure(Reaction::broken, fmt::format("metrics-listen {}", listen.to_string()), error.value());
    };
    const tcp::endpoint local(asio::ip::make_address(listen.address.to_string()), listen.port.value);
    auto& acceptor = impl_->acceptor;
    acceptor.open(local.protocol(), error);
    if (error) return wrong();
    acceptor.set_option(tcp::acceptor::reuse_address(true), error);
    // While one gmgated takes over from another both are there for a moment.
    const int on = 1;
    setsockopt(acceptor.native_handle(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    acceptor.bind(local, error);
    if (error) return wrong();
    acceptor.listen(static_cast<int>(impl_->settings.clients), error);
    if (!error) acceptor.non_blocking(true, error);  // for the accept with the reserve
    if (error) return wrong();
    spawn_lasting(
        impl_->executor, [impl = impl_] { return impl->accept(impl); }, "http-accept");
    return {};
}

void HttpResponder::close() {
    asio::error_code ignored;
    impl_->acceptor.close(ignored);
}

Endpoint HttpResponder::local() const {
    asio::error_code error;
    return {impl_->settings.listen.address, Port{impl_->acceptor.local_endpoint(error).port()}};
}

}  // namespace gmgate::daemon
