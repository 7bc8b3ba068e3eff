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

    Impl(asio::any_io_executor e, RedisAddress a, Handlers h, Limits l)
        : executor(e), address(std::move(a)), handlers(std::move(h)), limits(l), socket(e), pause(e), watch(e) {}

    Task<void> run();
    Task<Result<void>> connect();
    Task<std::string> serve();
    Task<void> log_in();
    void send(const std::vector<std::string>& command, Completion complete);
    void write();
    Result<void> read(std::string_view bytes);
    void down(const std::string& why);
    void watch_later();
    void close_socket();
    void close();

    asio::any_io_executor executor;
    RedisAddress address;
    Handlers handlers;
    Limits limits;
    asio::generic::stream_protocol::socket socket;
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
        pause.expires_after(wait);
        asio::error_code ignored;
        co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
        wait = std::min(wait * 2, limits.last_pause);
    }
}

Task<Result<void>> Redis::Impl::connect() {
    close_socket();
    socket = asio::generic::stream_protocol::socket(executor);
    asio::error_code error;
    asio::generic::stream_protocol::endpoint to;
    if (!address.path.empty()) {
        to = asio::local::stream_protocol::endpoint(address.path);
    } else {
        const auto ip = asio::ip::make_address(address.endpoint.address.to_string(), error);
        to = asio::ip::tcp::endpoint(ip, address.endpoint.port.value);
    }
    is_connecting = true;
    connecting_since = SteadyClock::now();
    if (!error) co_await socket.async_connect(to, asio::redirect_error(asio::use_awaitable, error));
    is_connecting = false;
    if (error) co_return failure(Reaction::retry, "no connection to " + address.to_string() + ": " + error.message());
    co_return Result<void>{};
}

// Returns why the connection ended.
Task<std::string> Redis::Impl::serve() {
    reader = Reader(redisReaderCreateWithFunctions(&functions), &redisReaderFree);
    if (!reader) co_return "no memory";
    out.clear();
    spawn(executor, log_in(), "redis-log-in");
    std::array<char, 65536> room;
    for (;;) {
        asio::error_code error;
        const auto size =
            co_await socket.async_read_some(asio::buffer(room), asio::redirect_error(asio::use_awaitable, error));
        if (error) co_return error == asio::error::eof ? "it has closed the connection" : error.message();
        if (const auto ok = read({room.data(), size}); !ok) co_return ok.error().text;
    }
}

// A password first; then one question, for a store that is loading its file answers with errors.
Task<void> Redis::Impl::log_in() {
    const auto self = shared_from_this();
    std::vector<std::vector<std::string>> commands;
    if (!address.password.empty() && address.user.empty()) commands.push_back({"AUTH", address.password});
    if (!address.password.empty() && !address.user.empty())
        commands.push_back({"AUTH", address.user, address.password});
    commands.push_back({"PING"});
    for (auto& command : commands) {
        auto start = [this](auto handler, std::vector<std::string> words) {
            auto resume = std::make_shared<decltype(handler)>(std::move(handler));
            send(words, [resume](Result<RedisAnswer> answer) { (*resume)(std::move(answer)); });
        };
        const auto answer = co_await asio::async_initiate<const asio::use_awaitable_t<>, void(Result<RedisAnswer>)>(
            std::move(start), asio::use_awaitable, std::move(command));
        if (answer) continue;
        if (!is_closed) down("it refuses: " + answer.error().text);
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
        if (answer->kind == RedisReply::Kind::error) complete(failure(Reaction::refused, std::move(answer->text)));
        else complete(std::move(answer));
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
}

void Redis::Impl::close() {
    is_closed = true;
    handlers = {};
    pause.cancel();
    watch.cancel();
    down("it is given up");
}

Redis::Redis(asio::any_io_executor executor, RedisAddress address, Handlers handlers)
    : Redis(std::move(executor), std::move(address), std::move(handlers), Limits{}) {}

Redis::Redis(asio::any_io_executor executor, RedisAddress address, Handlers handlers, Limits limits)
    : impl_(std::make_shared<Impl>(std::move(executor), std::move(address), std::move(handlers), limits)) {}

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
