// A small HTTP responder for monitoring: GET of a few fixed paths, one answer a connection. On the loop, with limits.
//
// Why not the pull endpoint of prometheus-cpp: its civetweb server brings threads of its own, and tables and counters
// belong to one loop without locks. Its text serialiser does the format; these lines carry it.
#pragma once

#include <chrono>
#include <cstdint>
#include <expected>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include <asio/any_io_executor.hpp>

#include "base/endpoint.h"
#include "base/error.h"
#include "base/task.h"

namespace gmgate::daemon {

struct HttpAnswer {
    int status = 200;
    std::string content_type = "text/plain; charset=utf-8";
    std::string body;
};

struct HttpSettings {
    Endpoint listen;
    std::size_t clients = 16;
    std::size_t request_octets = 8192;
    std::chrono::seconds patience{10};  ///< for a whole request and its answer
};

struct HttpCounters {
    std::uint64_t requests = 0, refused = 0;
};

class HttpResponder {
public:
    using Handler = std::function<Task<HttpAnswer>()>;
    HttpResponder(asio::any_io_executor executor, HttpSettings settings);
    ~HttpResponder();

    void add(std::string path, Handler handler);
    /// Error names the endpoint and the reason.
    Result<void> open();
    void close();
    /// Where it listens (the port when 0 was asked for).
    Endpoint local() const;
    const HttpCounters& counters() const;

private:
    struct Impl;
    std::shared_ptr<Impl> impl_;  // shared with the connections in flight
};

/// The path of a request line "GET /path?query HTTP/1.1"; 400 or 405 as an answer when it is none.
std::expected<std::string, HttpAnswer> requested_path(std::string_view request_line);

}  // namespace gmgate::daemon
