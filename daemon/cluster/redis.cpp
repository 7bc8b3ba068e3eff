#include "daemon/cluster/redis.h"

#include <array>
#include <cerrno>
#include <charconv>
#include <deque>
#include <utility>

#include <hiredis/hiredis.h>
#include <asio/async_result.hpp>
#include <asio/connect.hpp>
#include <asio/generic/stream_protocol.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/local/stream_protocol.hpp>
#include <asio/post.hpp>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>
#include <asio/write.hpp>

#include "base/spawn.h"
#include "ktls/context.h"
#include "ktls/handshake.h"

namespace gmgate::daemon {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr std::size_t kElements = 1'000'000;  // of one list

// hiredis reads, and these make our values of it: an array is not believed to be as long as it says.
RedisReply* put(const redisReadTask* task, RedisReply::Kind kind) {
    auto reply = std::make_unique<RedisReply>();
    reply->kind = kind;
    auto* made = reply.get();
    if (!task->parent) return reply.release();
    auto& list = static_cast<RedisReply*>(task->parent->obj)->list;
    if (list.size() >= kElements) return nullptr;
    list.push_back(std::move(reply));
    return made;
}

void* make_text(const redisReadTask* task, char* text, std::size_t size) {
    const auto kind = task->type == REDIS_REPLY_ERROR    ? RedisReply::Kind::error
                      : task->type == REDIS_REPLY_STATUS ? RedisReply::Kind::status
                                                         : RedisReply::Kind::text;
    auto* reply = put(task, kind);
    if (reply) reply->text.assign(text, size);
    return reply;
}
void* make_list(const redisReadTask* task, int) { return put(task, RedisReply::Kind::list); }
void* make_number(const redisReadTask* task, long long value) {
    auto* reply = put(task, RedisReply::Kind::number);
    if (reply) reply->number = value;
    return reply;
}
void* make_nil(const redisReadTask* task) { return put(task, RedisReply::Kind::nil); }
void free_reply(void* reply) { delete static_cast<RedisReply*>(reply); }

redisReplyObjectFunctions functions{make_text, make_list, make_number, make_nil, free_reply};

std::string formatted(const std::vector<std::string>& command) {
    std::vector<const char*> words;
    std::vector<std::size_t> sizes;
    for (const auto& word : command) {
        words.push_back(word.data());
        sizes.push_back(word.size());
    }
    char* text = nullptr;
    const int size = redisFormatCommandArgv(&text, static_cast<int>(words.size()), words.data(), sizes.data());
    std::string out(text ? text : "", size > 0 ? static_cast<std::size_t>(size) : 0);
    std::free(text);  // NOLINT: hiredis 0.14 allocates with malloc
    return out;
}

}  // namespace

std::map<std::string, std::string> hash_of(const RedisReply& reply) {
    std::map<std::string, std::string> fields;
    for (std::size_t i = 0; i + 1 < reply.list.size(); i += 2) fields[reply.list[i]->text] = reply.list[i + 1]->text;
    return fields;
}

std::uint64_t number_of(const std::map<std::string, std::string>& fields, const char* name) {
    std::uint64_t number = 0;
    const auto at = fields.find(name);
    if (at != fields.end()) std::from_chars(at->second.data(), at->second.data() + at->second.size(), number);
    return number;
}

struct Redis::Impl : std::enable_shared_from_this<Redis::Impl> {
    using Completion = std::move_only_function<void(Result<RedisAnswer>)>;
    struct Pending {
        Completion complete;
        SteadyClock::time_point since;
    };
    using Reader = std::unique_ptr<redisReader, decltype(&redisReaderFree)>;

    Impl(asio::any_io_executor e, RedisStore s, Handlers h, Limits l)
        : executor(e), store(std::move(s)), handlers(std::move(h)), limits(l), socket(e), pause(e), watch(e) {}

    Task<void> run();
    const RedisAddress& address() const { return store.servers[server]; }
    Task<Result<void>> connect();
    Task<Result<void>> secure();
    Task<std::string> serve();
    Task<Result<std::size_t>> receive(std::string& bytes);
    Task<void> log_in();
    void send(const std::vector<std::string>& command, Completion complete);
    void write();
    Task<void> write_secure();
    Result<void> read(std::string_view bytes);
    void down(const std::string& why);
    void watch_later();
    void close_socket();
    void close();

    asio::any_io_executor executor;
    RedisStore store;
    std::size_t server = 0;  ///< which of them it is, or is tried
    Handlers handlers;
    Limits limits;
    asio::generic::stream_protocol::socket socket;
    std::unique_ptr<ktls::Handshaker> handshaker;  ///< from the first TLS connection on
    std::shared_ptr<ktls::Connection> tls;         ///< in place of the socket; shared with a read and a write under way
    asio::steady_timer pause, watch;
    Reader reader{nullptr, &redisReaderFree};
    std::deque<Pending> pending;
    std::string out, leaving;
    bool is_up = false, is_down_told = false, is_writing = false, is_closed = false;
    SteadyClock::time_point connecting_since{};
    bool is_connecting = false;
};

Task<void> Redis::Impl::run() {
    const auto self = shared_from_this();
    auto wait = limits.first_pause;
    while (!is_closed) {
        std::string why;
        const auto connected = co_await connect();
        if (connected) {
            why = co_await serve();
            wait = limits.first_pause;
        } else {
            why = connected.error().text;
        }
        if (is_closed) co_return;
        down(why);
        server = (server + 1) % store.servers.size();
        pause.expires_after(server == 0 ? wait : limits.first_pause);
        asio::error_code ignored;
        co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
        if (server == 0) wait = std::min(wait * 2, limits.last_pause);
    }
}

Task<Result<void>> Redis::Impl::connect() {
    close_socket();
    socket = asio::generic::stream_protocol::socket(executor);
    asio::error_code error;
    asio::generic::stream_protocol::endpoint to;
    if (!address().path.empty()) {
        to = asio::local::stream_protocol::endpoint(address().path);
    } else {
        const auto ip = asio::ip::make_address(address().endpoint.address.to_string(), error);
        to = asio::ip::tcp::endpoint(ip, address().endpoint.port.value);
    }
    is_connecting = true;
    connecting_since = SteadyClock::now();
    if (!error) co_await socket.async_connect(to, asio::redirect_error(asio::use_awaitable, error));
    is_connecting = false;
    if (error) co_return failure(Reaction::retry, "no connection to " + address().to_string() + ": " + error.message());
    if (address().is_tls) co_return co_await secure();
    co_return Result<void>{};
}

// The files are read each time: a certificate of the store's that was renewed needs no restart of ours.
Task<Result<void>> Redis::Impl::secure() {
    if (!handshaker) {
        auto made = ktls::Handshaker::make(executor, {.threads = 1});
        if (!made) co_return std::unexpected(made.error());
        handshaker = std::make_unique<ktls::Handshaker>(std::move(*made));
    }
    const auto context = ktls::Context::client({.ca_file = store.ca_file, .server_name = store.tls_name});
    if (!context) co_return std::unexpected(context.error());
    asio::error_code error;
    ktls::OwnedFd taken(socket.release(error));
    if (error) co_return failure(Reaction::retry, "no connection to " + address().to_string() + ": " + error.message());
    auto handshake = handshaker->connect(std::move(taken), *context, limits.patience);
    auto established = co_await std::move(handshake);
    if (!established)
        co_return failure(Reaction::retry, "TLS to " + address().to_string() + ": " + established.error().text);
    tls = std::move(established->connection);
    co_return Result<void>{};
}

// Appends some bytes; 0: the other end has closed.
Task<Result<std::size_t>> Redis::Impl::receive(std::string& bytes) {
    if (const auto secured = tls) co_return co_await secured->read(bytes);
    std::array<char, 65536> room;
    asio::error_code error;
    const auto size =
        co_await socket.async_read_some(asio::buffer(room), asio::redirect_error(asio::use_awaitable, error));
    bytes.append(room.data(), size);
    if (error == asio::error::eof) co_return std::size_t{0};
    if (error) co_return failure(Reaction::broken, error.message());
    co_return size;
}

// Returns why the connection ended.
Task<std::string> Redis::Impl::serve() {
    reader = Reader(redisReaderCreateWithFunctions(&functions), &redisReaderFree);
    if (!reader) co_return "no memory";
    out.clear();
    spawn(executor, log_in(), "redis-log-in");
    std::string bytes;
    for (;;) {
        bytes.clear();
        const auto size = co_await receive(bytes);
        if (!size) co_return size.error().text;
        if (*size == 0) co_return "it has closed the connection";
        if (const auto ok = read(bytes); !ok) co_return ok.error().text;
    }
}

// A password first; then one question, for a store that is loading its file answers with errors, and of several servers
// only the master takes what is written.
Task<void> Redis::Impl::log_in() {
    const auto self = shared_from_this();
    std::vector<std::vector<std::string>> commands;
    const auto& to = address();
    if (!to.password.empty() && to.user.empty()) commands.push_back({"AUTH", to.password});
    if (!to.password.empty() && !to.user.empty()) commands.push_back({"AUTH", to.user, to.password});
    const bool is_one_of_several = store.servers.size() > 1;
    commands.push_back({is_one_of_several ? "ROLE" : "PING"});
    for (auto& command : commands) {
        auto start = [this](auto handler, std::vector<std::string> words) {
            auto resume = std::make_shared<decltype(handler)>(std::move(handler));
            send(words, [resume](Result<RedisAnswer> answer) { (*resume)(std::move(answer)); });
        };
        const auto answer = co_await asio::async_initiate<const asio::use_awaitable_t<>, void(Result<RedisAnswer>)>(
            std::move(start), asio::use_awaitable, std::move(command));
        const bool is_wrong_role = answer && is_one_of_several && &command == &commands.back() &&
                                   ((*answer)->list.empty() || (*answer)->list[0]->text != "master");
        if (answer && !is_wrong_role) continue;
        if (!is_closed) down(is_wrong_role ? "it is no master" : "it refuses: " + answer.error().text);
        close_socket();
        co_return;
    }
    if (is_closed) co_return;
    is_up = true;
    is_down_told = false;
    if (handlers.on_up) handlers.on_up();
}

void Redis::Impl::send(const std::vector<std::string>& command, Completion complete) {
    pending.push_back({std::move(complete), SteadyClock::now()});
    out += formatted(command);
    // What comes in one turn of the loop leaves together.
    if (!std::exchange(is_writing, true))
        asio::post(executor, [weak = weak_from_this()] {
            if (const auto self = weak.lock()) self->write();
        });
}

void Redis::Impl::write() {
    if (is_closed || out.empty()) {
        is_writing = false;
        return;
    }
    if (tls) return spawn(executor, write_secure(), "redis-write");
    leaving = std::exchange(out, {});
    asio::async_write(socket, asio::buffer(leaving),
                      [weak = weak_from_this()](const asio::error_code& error, std::size_t) {
                          const auto self = weak.lock();
                          if (!self) return;
                          if (error) {
                              self->is_writing = false;  // the reader hears of it, too
                              return self->close_socket();
                          }
                          self->write();
                      });
}

Task<void> Redis::Impl::write_secure() {
    const auto self = shared_from_this();
    const auto secured = tls;
    while (secured && secured == tls && !is_closed && !out.empty()) {
        const auto bytes = std::exchange(out, {});
        const auto written = co_await secured->write(bytes);
        if (!written && secured == tls) close_socket();  // the reader hears of it, too
    }
    is_writing = false;
}

Result<void> Redis::Impl::read(std::string_view bytes) {
    const auto strange = [](std::string what) {
        return failure(Reaction::broken, "what it says is no RESP: " + std::move(what));
    };
    if (redisReaderFeed(reader.get(), bytes.data(), bytes.size()) != REDIS_OK) return strange(reader->errstr);
    for (;;) {
        void* made = nullptr;
        if (redisReaderGetReply(reader.get(), &made) != REDIS_OK) return strange(reader->errstr);
        if (!made) break;
        RedisAnswer answer(static_cast<RedisReply*>(made));
        if (pending.empty()) return strange("an answer that nobody asked for");
        auto complete = std::move(pending.front().complete);
        pending.pop_front();
        if (answer->kind == RedisReply::Kind::error) {
            const bool is_replica = answer->text.find("READONLY") != std::string::npos;
            complete(failure(Reaction::refused, std::move(answer->text)));
            if (is_replica) return failure(Reaction::broken, "it is no master any more");
        } else {
            complete(std::move(answer));
        }
    }
    if (reader->len > limits.answer) return strange("an answer that is too long");
    return {};
}

void Redis::Impl::down(const std::string& why) {
    is_up = false;
    close_socket();
    for (auto& one : std::exchange(pending, {}))
        one.complete(failure(Reaction::retry, "the connection to the shared store went: " + why));
    if (!std::exchange(is_down_told, true) && handlers.on_down) handlers.on_down(why);
}

// Silence is an end, too: whoever waits goes on without.
void Redis::Impl::watch_later() {
    watch.expires_after(limits.patience / 4);
    watch.async_wait([weak = weak_from_this()](const asio::error_code& error) {
        const auto self = weak.lock();
        if (!self || error || self->is_closed) return;
        const auto now = SteadyClock::now();
        const bool is_silent = !self->pending.empty() && now - self->pending.front().since > self->limits.patience;
        const bool is_far = self->is_connecting && now - self->connecting_since > self->limits.patience;
        if (is_silent) self->down("it does not answer");
        else if (is_far) self->close_socket();
        self->watch_later();
    });
}

void Redis::Impl::close_socket() {
    asio::error_code ignored;
    socket.close(ignored);
    if (tls) tls->close(true);
    tls.reset();
}

void Redis::Impl::close() {
    is_closed = true;
    handlers = {};
    pause.cancel();
    watch.cancel();
    down("it is given up");
}

Redis::Redis(asio::any_io_executor executor, RedisStore store, Handlers handlers)
    : Redis(std::move(executor), std::move(store), std::move(handlers), Limits{}) {}

Redis::Redis(asio::any_io_executor executor, RedisStore store, Handlers handlers, Limits limits)
    : impl_(std::make_shared<Impl>(std::move(executor), std::move(store), std::move(handlers), limits)) {}

Redis::~Redis() { impl_->close(); }

void Redis::start() {
    spawn(impl_->executor, impl_->run(), "redis");
    impl_->watch_later();
}

bool Redis::is_up() const { return impl_->is_up; }
std::size_t Redis::waiting() const { return impl_->pending.size(); }

Task<Result<RedisAnswer>> Redis::ask(std::vector<std::string> command) {
    const auto impl = impl_;
    if (!impl->is_up) co_return failure(Reaction::retry, "the shared store is not there");
    if (impl->pending.size() >= impl->limits.commands)
        co_return failure(Reaction::exhausted, "too much waits for the shared store");
    auto start = [impl](auto handler, std::vector<std::string> words) {
        auto resume = std::make_shared<decltype(handler)>(std::move(handler));
        impl->send(words, [resume, executor = impl->executor](Result<RedisAnswer> answer) {
            asio::post(executor, [resume, told = std::move(answer)]() mutable { (*resume)(std::move(told)); });
        });
    };
    co_return co_await asio::async_initiate<const asio::use_awaitable_t<>, void(Result<RedisAnswer>)>(
        std::move(start), asio::use_awaitable, std::move(command));
}

}  // namespace gmgate::daemon
