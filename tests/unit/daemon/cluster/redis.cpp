// The client of the shared store against a server that answers well, late, or with rubbish.
#include <doctest/doctest.h>

#include <array>
#include <filesystem>

#include <unistd.h>
#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>
#include <asio/local/stream_protocol.hpp>
#include <asio/write.hpp>

#include "daemon/cluster/redis.h"

using namespace gmgate;
using namespace gmgate::daemon;

namespace {

/// Takes connections; says the next of `answers` to whatever comes, and nothing when there is none left.
struct FakeStore {
    asio::io_context loop;
    std::string path = "/tmp/gmgate-fake-redis." + std::to_string(getpid());
    asio::local::stream_protocol::acceptor acceptor;
    std::vector<std::shared_ptr<asio::local::stream_protocol::socket>> connections;
    std::vector<std::string> answers;
    std::string heard;
    int ups = 0, downs = 0;
    std::string why;
    std::unique_ptr<Redis> client;

    FakeStore() : acceptor((std::filesystem::remove(path), loop), asio::local::stream_protocol::endpoint(path)) {
        accept();
        Redis::Limits limits;
        limits.patience = std::chrono::milliseconds{200};
        limits.first_pause = std::chrono::milliseconds{1};
        limits.commands = 3;
        client = std::make_unique<Redis>(loop.get_executor(), *RedisAddress::parse("unix:" + path),
                                         Redis::Handlers{.on_up = [this] { ++ups; },
                                                         .on_down =
                                                             [this](std::string reason) {
                                                                 ++downs;
                                                                 why = std::move(reason);
                                                             }},
                                         limits);
        client->start();
    }
    ~FakeStore() {
        client.reset();
        loop.restart();
        loop.poll();
        std::filesystem::remove(path);
    }
    void accept() {
        acceptor.async_accept([this](const asio::error_code& error, asio::local::stream_protocol::socket socket) {
            if (error) return;
            connections.push_back(std::make_shared<asio::local::stream_protocol::socket>(std::move(socket)));
            read(connections.back());
            accept();
        });
    }
    void read(const std::shared_ptr<asio::local::stream_protocol::socket>& socket) {
        auto room = std::make_shared<std::array<char, 4096>>();
        socket->async_read_some(asio::buffer(*room),
                                [this, socket, room](const asio::error_code& error, std::size_t size) {
                                    if (error) return;
                                    heard.append(room->data(), size);
                                    if (!answers.empty()) {
                                        const auto answer = answers.front();
                                        answers.erase(answers.begin());
                                        asio::write(*socket, asio::buffer(answer));
                                    }
                                    read(socket);
                                });
    }
    bool until(const std::function<bool()>& condition) {
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds{20};
        loop.restart();
        while (!condition() && std::chrono::steady_clock::now() < end) loop.run_one_for(std::chrono::milliseconds{20});
        return condition();
    }
    /// Shared with those that are still to come: the store's end completes them.
    struct Answers {
        using Values = std::vector<std::optional<Result<RedisAnswer>>>;
        explicit Answers(std::size_t count) : values(std::make_shared<Values>(count)) {}
        Values::value_type& operator[](std::size_t at) const { return (*values)[at]; }
        std::shared_ptr<Values> values;
    };
    void ask(const Answers& into, std::size_t at, std::vector<std::string> words) {
        asio::co_spawn(loop, client->ask(std::move(words)),
                       [values = into.values, at](const std::exception_ptr&, Result<RedisAnswer> answer) {
                           (*values)[at] = std::move(answer);
                       });
    }
};

}  // namespace

TEST_CASE("commands in a pipeline get their answers in order, the store's errors among them") {
    FakeStore store;
    store.answers = {"+PONG\r\n", "$5\r\nhello\r\n-ERR no\r\n*2\r\n:7\r\n$-1\r\n"};
    REQUIRE(store.until([&] { return store.ups == 1; }));
    FakeStore::Answers answers(3);
    for (std::size_t i = 0; i < 3; ++i) store.ask(answers, i, {"GET", std::to_string(i)});
    REQUIRE(store.until([&] { return answers[2].has_value(); }));
    CHECK((**answers[0])->text == "hello");
    CHECK(!*answers[1]);
    CHECK(answers[1]->error().text == "ERR no");
    CHECK(answers[1]->error().reaction == Reaction::refused);
    CHECK((**answers[2])->list.at(0)->number == 7);
    CHECK((**answers[2])->list.at(1)->kind == RedisReply::Kind::nil);
    CHECK(store.heard.ends_with("*2\r\n$3\r\nGET\r\n$1\r\n2\r\n"));
}

TEST_CASE("rubbish, silence, or an end: whoever waits is told, and the client comes back") {
    FakeStore store;
    store.answers = {"+PONG\r\n"};
    REQUIRE(store.until([&] { return store.ups == 1; }));
    for (const char* rubbish : {"HTTP/1.1 200 OK\r\n\r\n", "*1000000000\r\n*1000000000\r\n*x\r\n", "$-5\r\nxx", "",
                                "+unasked\r\n+unasked\r\n"}) {
        CAPTURE(rubbish);
        const int ups = store.ups, downs = store.downs;
        if (*rubbish != 0) store.answers = {rubbish};
        FakeStore::Answers answers(1);
        store.ask(answers, 0, {"GET", "x"});
        CHECK(store.until([&] { return store.downs == downs + 1; }));
        store.answers = {"+PONG\r\n"};
        CHECK(store.until([&] { return store.ups == ups + 1; }));
        REQUIRE(answers[0].has_value());
        if (std::string_view(rubbish).starts_with('+')) continue;  // the first was an answer
        REQUIRE(!*answers[0]);
        CHECK(answers[0]->error().reaction == Reaction::retry);
    }
}

TEST_CASE("no more wait than may, and nobody waits for a store that is not there") {
    FakeStore store;
    FakeStore::Answers answers(5);
    store.ask(answers, 4, {"GET", "early"});
    REQUIRE(store.until([&] { return answers[4].has_value(); }));
    CHECK(!*answers[4]);
    store.answers = {"+PONG\r\n"};
    REQUIRE(store.until([&] { return store.ups == 1; }));
    for (std::size_t i = 0; i < 4; ++i) store.ask(answers, i, {"GET", std::to_string(i)});
    REQUIRE(store.until([&] { return answers[3].has_value(); }));
    CHECK(answers[3]->error().reaction == Reaction::exhausted);
    CHECK(!answers[0].has_value());
}
