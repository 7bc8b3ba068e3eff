// A client of Redis or Valkey: commands in a pipeline over one connection, in clear or over TLS, that comes back by
// itself. Of several servers it takes the one that is the master.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <asio/any_io_executor.hpp>

#include "base/error.h"
#include "base/task.h"
#include "daemon/config/cluster.h"

namespace gmgate::daemon {

/// An answer, as RESP2 knows them.
struct RedisReply {
    enum class Kind { nil, status, error, number, text, list };
    Kind kind = Kind::nil;
    std::string text;         ///< status, error, text
    std::int64_t number = 0;  ///< number
    std::vector<std::unique_ptr<RedisReply>> list;

    bool is_text() const { return kind == Kind::text || kind == Kind::status; }
};
using RedisAnswer = std::unique_ptr<RedisReply>;

/// A list of names and values in turn, as HGETALL tells them; what is none says nothing.
std::map<std::string, std::string> hash_of(const RedisReply& reply);
/// That field as a number; 0 without it.
std::uint64_t number_of(const std::map<std::string, std::string>& fields, const char* name);

/// One loop. The store is not trusted: what is no RESP, too long or too late ends the connection, which is made again
/// after a pause (0.1 to 2 s). Nothing is sent twice.
class Redis {
public:
    struct Handlers {
        /// It answers; a command before this one is refused.
        std::function<void()> on_up;
        /// It does not, and why. Once for each time that it goes, and once when the first attempt fails.
        std::function<void(std::string why)> on_down;
    };
    struct Limits {
        std::size_t commands = 20000;              ///< that wait for an answer; one more is refused
        std::size_t answer = 64 * 1024 * 1024;     ///< octets of an answer under way
        std::chrono::milliseconds patience{2000};  ///< for the oldest answer, and for a connection
        std::chrono::milliseconds first_pause{100}, last_pause{2000};
    };

    Redis(asio::any_io_executor executor, RedisStore store, Handlers handlers);
    Redis(asio::any_io_executor executor, RedisStore store, Handlers handlers, Limits limits);
    Redis(const Redis&) = delete;
    Redis& operator=(const Redis&) = delete;
    ~Redis();

    void start();
    bool is_up() const;
    std::size_t waiting() const;
    /// Reaction::retry: no connection, or it went before the answer came (whether the command was done is not known);
    /// exhausted: too many commands wait; refused: the store's own error, in its words.
    Task<Result<RedisAnswer>> ask(std::vector<std::string> command);

private:
    struct Impl;
    std::shared_ptr<Impl> impl_;  // shared with its coroutines
};

}  // namespace gmgate::daemon
