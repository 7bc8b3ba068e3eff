// The log never holds the process up: a pipe that nobody reads loses lines, says how many, and ends nobody.
#include "base/log.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <string>

#include <doctest/doctest.h>

using namespace gmgate;

namespace {

/// Standard error is `fd` while this lives.
struct Redirected {
    explicit Redirected(int fd) : saved(::dup(STDERR_FILENO)) {
        ::dup2(fd, STDERR_FILENO);
        log::start(false);
    }
    ~Redirected() {
        ::dup2(saved, STDERR_FILENO);
        ::close(saved);
        log::start(false);
    }
    int saved;
};

std::string read_all(int fd) {
    std::string all;
    std::array<char, 4096> buffer{};
    ::fcntl(fd, F_SETFL, O_NONBLOCK);
    for (ssize_t count = ::read(fd, buffer.data(), buffer.size()); count > 0;
         count = ::read(fd, buffer.data(), buffer.size()))
        all.append(buffer.data(), static_cast<std::size_t>(count));
    return all;
}

}  // namespace

TEST_CASE("log: a pipe or socket that nobody reads costs lines and no time; they are counted when it is read again") {
    log::set_level(log::Level::debug);  // of which none are held back
    for (const bool is_pipe : {true, false}) {
        std::array<int, 2> ends{};
        REQUIRE((is_pipe ? ::pipe(ends.data()) : ::socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data())) == 0);
        const int from = ends[0], to = ends[1];
        std::string text;
        {
            const Redirected redirected(to);
            const auto begun = std::chrono::steady_clock::now();
            for (int i = 0; i < 20000; ++i) log::debug("test-line", {{"number", i}, {"more", std::string(200, 'x')}});
            CHECK(std::chrono::steady_clock::now() - begun < std::chrono::seconds{10});
            text = read_all(from);
            log::info("test-after");
            text += read_all(from);
        }
        CHECK(text.find("test-line number=0 ") != std::string::npos);
        CHECK(text.find("number=19999") == std::string::npos);
        const auto lost = text.find("log-lines-lost count=");
        CHECK(lost != std::string::npos);
        CHECK(text.find("test-after") > lost);
        CHECK(text.ends_with("\n"));
        ::close(from);
        ::close(to);
    }
    log::set_level(log::Level::info);
}

TEST_CASE("log: the reader of the pipe goes: lines are lost, the process goes on") {
    const auto before = std::signal(SIGPIPE, SIG_IGN);  // as gmgated does first of all
    std::array<int, 2> ends{};
    REQUIRE(::pipe(ends.data()) == 0);
    {
        const Redirected redirected(ends[1]);
        ::close(ends[0]);
        log::info("test-nobody");
        log::error("test-nobody");
    }
    ::close(ends[1]);
    std::signal(SIGPIPE, before);
    CHECK(true);
}
