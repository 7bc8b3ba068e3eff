// The monitoring port: HTTP over a real socket, hostile requests, and the text that Prometheus reads.
#include <doctest/doctest.h>

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <set>
#include <sstream>
#include <thread>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>

#include "daemon/operate/http_responder.h"
#include "daemon/operate/metrics.h"
#include "tests/support/fake_kernel.h"

using namespace gmgate;
using namespace gmgate::daemon;

namespace {

struct Responder {
    explicit Responder(const char* address = "127.0.0.1", HttpSettings settings = {}) {
        settings.listen = {*Address::parse(address), Port{0}};
        http = std::make_unique<HttpResponder>(loop.get_executor(), settings);
        http->add("/healthz", []() -> Task<HttpAnswer> { co_return HttpAnswer{.body = "ok\n"}; });
        const auto opened = http->open();
        REQUIRE_MESSAGE(opened.has_value(), (opened ? "" : opened.error().text));
        local = http->local();
        thread = std::thread([this] { loop.run(); });
    }
    ~Responder() {
        asio::post(loop, [this] { http->close(); });
        thread.join();
    }
    int connected() const {
        const int fd = socket(local.address.af(), SOCK_STREAM, 0);
        sockaddr_storage to{};
        const auto length = local.to_sockaddr(to);
        REQUIRE(connect(fd, reinterpret_cast<const sockaddr*>(&to), length) == 0);
        return fd;
    }
    std::string ask(const std::string& bytes) const {
        const int fd = connected();
        static_cast<void>(send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL));
        std::string got;
        char chunk[4096];
        for (ssize_t n; (n = recv(fd, chunk, sizeof chunk, 0)) > 0;) got.append(chunk, static_cast<std::size_t>(n));
        close(fd);
        return got;
    }
    asio::io_context loop;
    std::unique_ptr<HttpResponder> http;
    Endpoint local;
    std::thread thread;
};

}  // namespace

TEST_CASE("metrics: the responder answers its paths over IPv4 and IPv6, and nothing else") {
    for (const char* address : {"127.0.0.1", "::1"}) {
        Responder responder(address);
        const auto ok = responder.ask("GET /healthz?x=1 HTTP/1.1\r\nHost: x\r\n\r\n");
        CHECK(ok.starts_with("HTTP/1.1 200 OK\r\n"));
        CHECK(ok.ends_with("\r\n\r\nok\n"));
        CHECK(responder.ask("HEAD /healthz HTTP/1.1\r\n\r\n").ends_with("\r\n\r\n"));
        CHECK(responder.ask("GET /etc/passwd HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        CHECK(responder.ask("POST /healthz HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
        CHECK(responder.ask("nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
        CHECK(responder.ask("\r\n\r\n").starts_with("HTTP/1.1 400"));
        CHECK(responder.ask("GET /healthz HTTP/1.1\r\nX: " + std::string(20000, 'a')).find("431") != std::string::npos);
    }
}

TEST_CASE("metrics: clients at once are limited, and one that says nothing is closed") {
    HttpSettings settings;
    settings.clients = 1;
    settings.patience = std::chrono::seconds{1};
    Responder responder("127.0.0.1", settings);
    const int silent = responder.connected();
    char byte = 0;
    // The first holds the only place until its time is over; then others are served.
    CHECK(recv(silent, &byte, 1, 0) == 0);
    close(silent);
    CHECK(responder.ask("GET /healthz HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200"));
}

TEST_CASE("metrics: each metric is declared once with help and type, and every counter of the gateway is there") {
    asio::io_context loop;
    Config config;
    Table table;
    Counters counters;
    counters.add(Counter::challenge_tx, 5);
    counters.add(Counter::reject_494, 2);
    test::FakeKernel kernel;
    sip::Transports transports(loop.get_executor(), {});
    sip::Transactions transactions(loop.get_executor(), transports, {},
                                   [](const sip::Flow&) { return sip::kUeTimers; });
    Clock clock;
    PacketTap tap(loop.get_executor(), clock, {}, [](Spi) { return false; });
    ktls::Counters tls;
    tls.handshakes_ok = 3;
    std::string text;
    asio::co_spawn(loop,
                   metrics_text({config, table, counters, kernel, transports, transactions, tap, [&] { return &tls; },
                                 [] { return true; }, [] { return false; }}),
                   [&text](const std::exception_ptr&, std::string page) { text = std::move(page); });
    loop.run();
    INFO(text);
    CHECK(text.find("\ngmgate_challenge_tx_total 5\n") != std::string::npos);
    CHECK(text.find("gmgate_guards_stand 1") != std::string::npos);
    CHECK(text.find("gmgate_tls_handshakes_total{outcome=\"ok\"} 3") != std::string::npos);
    CHECK(text.find("\ngmgate_rejected_total{code=\"494\"} 2\n") != std::string::npos);
    for (const auto& info : kCounterInfo) {
        if (info.name.starts_with("reject_")) continue;  // a code is a label
        CHECK(text.find("# HELP gmgate_" + std::string(info.name) + "_total " + std::string(info.help)) !=
              std::string::npos);
    }
    std::set<std::string> declared, typed;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
        std::istringstream words(line);
        std::string hash, what, name;
        words >> hash >> what >> name;
        if (what == "HELP") CHECK_MESSAGE(declared.insert(name).second, name);
        else if (what == "TYPE") CHECK_MESSAGE(typed.insert(name).second, name);
        else {
            const auto sample = line.substr(0, line.find_first_of("{ "));
            CHECK_MESSAGE(declared.contains(sample), sample);
        }
    }
    CHECK(declared == typed);
}
