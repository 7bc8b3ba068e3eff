// The log never holds the process up: a pipe that nobody reads loses lines, says how many, and ends nobody.
#include "base/log.h"
#include "base/log_format.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <string>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

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

TEST_CASE("log: as JSON each line is one object in UTC, whatever a peer puts into a value, and however much") {
    std::array<int, 2> ends{};
    REQUIRE(::pipe(ends.data()) == 0);
    std::string text;
    {
        const Redirected redirected(ends[1]);
        log::notice("test-first");  // what other cases lost is told here
        (void)read_all(ends[0]);
        log::set_format(log::Format::json);
        log::notice("test-json", {{"impi", "a\"b\\c\nd\x1b[31m\xff"}, {"set", 7}});
        const std::string hostile(300, '\x01');
        log::notice("test-long", {{"a", hostile}, {"b", hostile}, {"c", hostile}, {"d", hostile}, {"e", hostile}});
        log::set_format(log::Format::text);
        log::notice("test-text");
        text = read_all(ends[0]);
    }
    ::close(ends[0]);
    ::close(ends[1]);
    const auto second = text.find('\n') + 1, third = text.find('\n', second) + 1;
    const auto line = nlohmann::json::parse(text.substr(0, second));
    CHECK(line["id"] == "test-json");
    CHECK(line["level"] == "notice");
    CHECK(line["impi"] == "a\\x22b\\x5cc\\x0ad\\x1b[31m\\xff");
    CHECK(line["set"] == "7");
    CHECK(line["time"].get<std::string>().size() == std::string("2026-11-28T09:18:50.123Z").size());
    CHECK(line["time"].get<std::string>().back() == 'Z');
    const auto cut = nlohmann::json::parse(text.substr(second, third - second));
    CHECK(cut["cut"] == "true");
    CHECK(third - second <= 4096);
    CHECK(text.substr(third).find("Z notice  test-text\n") != std::string::npos);
}

TEST_CASE("log: the journal gets each key as a field of its own, and a value ends no field; without it stderr does") {
    std::string folder = "/tmp/gmgate-log-XXXXXX";
    REQUIRE(::mkdtemp(folder.data()) != nullptr);
    const auto path = folder + "/socket";
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    const int journal = ::socket(AF_UNIX, SOCK_DGRAM, 0);
    REQUIRE(::bind(journal, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    std::array<int, 2> ends{};
    REQUIRE(::pipe(ends.data()) == 0);
    std::string text, got(4096, '\0');
    {
        const Redirected redirected(ends[1]);
        CHECK(log::use_journal(path));
        log::warning("test-journal",
                     {{"impi", "001@x"}, {"why", "no\nPRIORITY=0"}, {"failed-checks", "via"}, {"priority", "mine"}});
        const auto count = ::recv(journal, got.data(), got.size(), MSG_DONTWAIT);
        REQUIRE(count > 0);
        got.resize(static_cast<std::size_t>(count));
        ::close(journal);
        log::warning("test-no-journal");
        log::use_journal({});
        text = read_all(ends[0]);
    }
    ::close(ends[0]);
    ::close(ends[1]);
    ::unlink(path.c_str());
    ::rmdir(folder.c_str());
    CHECK(got ==
          "MESSAGE=test-journal impi=001@x why=\"no\\x0aPRIORITY=0\" failed-checks=via priority=mine\n"
          "PRIORITY=4\nSYSLOG_IDENTIFIER=gmgated\nGMGATE_ID=test-journal\nIMPI=001@x\nWHY=no\\x0aPRIORITY=0\n"
          "FAILED_CHECKS=via\nGMGATE_PRIORITY=mine\n");
    CHECK(text.find("test-journal") == std::string::npos);
    CHECK(text.find("test-no-journal") != std::string::npos);
}
