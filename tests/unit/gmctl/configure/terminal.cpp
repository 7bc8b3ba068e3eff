// gmctl configure on a real terminal: the very session of the feature text, typed into a pseudo-terminal; and the file
// on disk.
#include <doctest/doctest.h>

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "gmctl/configure/configure.h"
#include "gmctl/configure/file.h"
#include "tests/unit/gmctl/configure/support.h"

using namespace gmgate;
using namespace gmgate::daemon::configure;

namespace {

constexpr auto kPatience = std::chrono::seconds(60);

struct Folder {
    Folder() {
        char name[] = "/tmp/gm_configure.XXXXXX";
        REQUIRE(mkdtemp(name));
        path = name;
    }
    ~Folder() { std::filesystem::remove_all(path); }
    std::string path;
};

std::string contents(const std::string& path) {
    std::ifstream in(path);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
}

void put(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

struct Said {
    int status = -1;
    std::string text;  ///< standard output
};

// The shell with standard input and output that are files.
Said piped(const Options& options, const std::string& input) {
    Folder folder;
    put(folder.path + "/in", input);
    const auto child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        const int in = open((folder.path + "/in").c_str(), O_RDONLY),
                  out = open((folder.path + "/out").c_str(), O_WRONLY | O_CREAT, 0600);
        dup2(in, STDIN_FILENO);
        dup2(out, STDOUT_FILENO);
        _exit(run(options));
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, contents(folder.path + "/out")};
}

// A terminal with the shell in it. What it prints is kept without carriage returns and escape sequences.
class Terminal {
public:
    explicit Terminal(const Options& options) {
        winsize size{};
        size.ws_col = 120;
        size.ws_row = 40;
        pid_ = forkpty(&fd_, nullptr, nullptr, &size);
        REQUIRE(pid_ >= 0);
        if (pid_ == 0) {
            setenv("TERM", "dumb", 1);  // the text, without the colours and jumps of a terminal
            _exit(run(options));
        }
    }
    ~Terminal() {
        close(fd_);
        if (pid_ > 0) {
            kill(pid_, SIGKILL);
            waitpid(pid_, nullptr, 0);
        }
    }
    Terminal(const Terminal&) = delete;
    // Types once the shell reads keys itself: libedit prints the prompt first and takes the echo off then.
    void type(const std::string& keys) {
        const auto deadline = std::chrono::steady_clock::now() + kPatience;
        termios mode{};
        while (tcgetattr(fd_, &mode) == 0 && (mode.c_lflag & ECHO) != 0) {
            REQUIRE(std::chrono::steady_clock::now() < deadline);
            std::this_thread::yield();
        }
        REQUIRE(write(fd_, keys.data(), keys.size()) == static_cast<ssize_t>(keys.size()));
    }
    // Waits until `text` has been printed after what was awaited before, and gives all up to its end.
    std::string await(const std::string& text) {
        const auto deadline = std::chrono::steady_clock::now() + kPatience;
        for (;;) {
            if (const auto at = printed_.find(text, seen_); at != std::string::npos) {
                const auto part = printed_.substr(seen_, at + text.size() - seen_);
                seen_ = at + text.size();
                return part;
            }
            pollfd ready{fd_, POLLIN, 0};
            const bool is_late = std::chrono::steady_clock::now() > deadline;
            REQUIRE_MESSAGE(!is_late, "waiting for \"", text, "\", got \"", printed_.substr(seen_), "\"");
            if (poll(&ready, 1, 1000) <= 0) continue;
            char buffer[4096];
            const auto got = read(fd_, buffer, sizeof buffer);
            REQUIRE_MESSAGE(got > 0, "the shell ended while \"", text, "\" was awaited; got \"", printed_.substr(seen_),
                            "\"");
            for (const char c : std::string_view(buffer, static_cast<std::size_t>(got)))
                if (c != '\r') printed_ += c;
        }
    }
    int status() {
        int status = 0;
        char buffer[4096];
        pollfd ready{fd_, POLLIN, 0};
        const auto milliseconds = static_cast<int>(std::chrono::milliseconds(kPatience).count());
        while (poll(&ready, 1, milliseconds) > 0 && read(fd_, buffer, sizeof buffer) > 0) {
        }  // its end is an error on this side
        REQUIRE_MESSAGE((ready.revents & (POLLHUP | POLLERR)) != 0, "the shell does not end");
        REQUIRE(waitpid(pid_, &status, 0) == pid_);
        pid_ = -1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }

private:
    int fd_ = -1;
    pid_t pid_ = -1;
    std::string printed_;
    std::size_t seen_ = 0;
};

}  // namespace

// The steps of the feature text, prompts and list included; only the second clear port of our realm01, its TLS port, is
// more than the text has.
TEST_CASE("SEED-37: the session of the feature text, typed on a terminal, changes the file") {
    Folder folder;
    const auto path = folder.path + "/gmgate.toml";
    put(path, kRealm01);
    Terminal terminal({.config = path, .prompt = "ORACLE"});
    terminal.await("ORACLE# ");
    terminal.type("configure terminal\n");
    CHECK(terminal.await("ORACLE(configure)# ") == "configure terminal\nORACLE(configure)# ");
    terminal.type("session-router\n");
    CHECK(terminal.await("ORACLE(session-router)# ") == "session-router\nORACLE(session-router)# ");
    terminal.type("sip-interface\n");
    CHECK(terminal.await("ORACLE(sip-interface)# ") == "sip-interface\nORACLE(sip-interface)# ");
    terminal.type("select\n");
    CHECK(terminal.await("selection: ") ==
          "select\n<RealmID>:\n1: realm01 172.172.30.31:5060 172.172.30.31:5061\n\nselection: ");
    terminal.type("1\n");
    CHECK(terminal.await("ORACLE(sip-interface)# ") == "1\nORACLE(sip-interface)# ");
    terminal.type("sec-agree-feature enabled\n");
    CHECK(terminal.await("ORACLE(sip-interface)# ") == "sec-agree-feature enabled\nORACLE(sip-interface)# ");
    terminal.type("sec-agree-pref ipsec3gpp-tls\n");
    CHECK(terminal.await("ORACLE(sip-interface)# ") == "sec-agree-pref ipsec3gpp-tls\nORACLE(sip-interface)# ");
    CHECK(contents(path) == kRealm01);
    terminal.type("done\n");
    terminal.await("saved to ");
    terminal.await("ORACLE(sip-interface)# ");
    CHECK(contents(path) ==
          replaced(kRealm01, "# the default\n",
                   "# the default\nsec-agree-feature = \"enabled\"\nsec-agree-pref = \"ipsec3gpp-tls\"\n"));
    terminal.type("exit\nexit\nexit\nexit\n");
    CHECK(terminal.status() == 0);
}

TEST_CASE("Tab completes and ? explains on a terminal") {
    Folder folder;
    const auto path = folder.path + "/gmgate.toml";
    put(path, kRealm01);
    Terminal terminal({.config = path, .prompt = "gmgate"});
    terminal.await("gmgate# ");
    terminal.type("conf\tt\t\n");
    terminal.await("gmgate(configure)# ");
    terminal.type("session-router\nsip-interface\nselect 1\n");
    for (int i = 0; i < 3; ++i) terminal.await("# ");
    terminal.type("sec-agree-pref \t");
    terminal.await("tls-ipsec3gpp\n");
    terminal.type("?");
    terminal.await("one of: ipsec3gpp, tls, ipsec3gpp-tls, tls-ipsec3gpp");
    terminal.type("tls-\t\n");
    terminal.type("sec-agree-feature enabled\ndone\n");
    terminal.await("saved to ");
    CHECK(contents(path).find("sec-agree-pref = \"tls-ipsec3gpp\"") != std::string::npos);
    terminal.await("# ");
    terminal.type("\x04");  // ^D
    CHECK(terminal.status() == 0);
}

TEST_CASE("What was typed but not saved makes the status 1; a file that is no TOML makes it 2") {
    Folder folder;
    const auto path = folder.path + "/gmgate.toml";
    put(path, kRealm01);
    {
        Terminal terminal({.config = path, .prompt = "gmgate"});
        terminal.await("gmgate# ");
        terminal.type("configure terminal\nsession-router\ncore\nnext-hop 10.2.0.9:5060\n");
        for (int i = 0; i < 4; ++i) terminal.await(")# ");
        terminal.type("\x04");
        CHECK(terminal.status() == 1);
    }
    CHECK(contents(path) == kRealm01);
    put(path, "this is no TOML\n");
    Terminal terminal({.config = path, .prompt = "gmgate"});
    CHECK(terminal.status() == 2);
}

TEST_CASE("Lines from a pipe are one change: all of it is written, or nothing and the status is 1") {
    Folder folder;
    const auto path = folder.path + "/gmgate.toml";
    put(path, kRealm01);
    const std::string core = "configure terminal\nsession-router\ncore\nselect\nnext-hop 10.2.0.9:5060\ndone\n";
    Options options{.config = path, .prompt = "gmgate"};
    // The first done is good, the line behind it is not, and what follows is not even tried.
    auto said = piped(options, core + "next-hop nowhere.\"\nnext-hop 10.2.0.8:5060\ndone\n");
    CHECK(said.status == 1);
    CHECK(said.text.find("10.2.0.8") == std::string::npos);
    CHECK(contents(path) == kRealm01);
    said = piped(options, core + "nonsense\n");
    CHECK(said.status == 1);
    CHECK(contents(path) == kRealm01);
    said = piped(options, core + "next-hop 10.2.0.8:5060\n");  // and no done
    CHECK(said.status == 1);
    CHECK(contents(path) == kRealm01);

    options.is_dry_run = true;
    said = piped(options, core);
    CHECK(said.status == 0);
    CHECK(said.text.find("-next-hop = \"10.2.0.2:5060\"") != std::string::npos);
    CHECK(said.text.find("+next-hop = \"10.2.0.9:5060\"") != std::string::npos);
    CHECK(contents(path) == kRealm01);
    options.is_dry_run = false;

    said = piped(options, "backup-config one\n" + core);
    CHECK(said.status == 0);
    CHECK(contents(path) == replaced(kRealm01, "10.2.0.2:5060", "10.2.0.9:5060"));
    CHECK(contents(path + ".backup-one") == kRealm01);
    CHECK(piped(options, core).status == 0);  // again: nothing has been changed, which is no mistake
    options.is_dry_run = true;
    CHECK(piped(options, core).text.find("nothing would change") != std::string::npos);
    options.is_dry_run = false;
    CHECK(piped(options, "restore-config one\n").status == 0);
    CHECK(contents(path) == kRealm01);
    CHECK(piped(options, "restore-config two\n").status == 1);
    CHECK(piped(options, "configure terminal\nsession-router\nsip-interface\nselect realm99\n").status == 1);
    // From nothing, element by element: what the file still needs is no mistake.
    const auto fresh = folder.path + "/fresh.toml";
    Options from_nothing{.config = fresh, .prompt = "gmgate"};
    CHECK(piped(from_nothing,
                "configure terminal\nsession-router\ncore\nselect\nlisten 10.2.0.1:5060\nnext-hop "
                "10.2.0.2:5060\nvisited-network-id v.example\ndone\nexit\nexit\nsecurity\nims-aka-profile\n"
                "name volte\nprotected-server-port 6100 6101\nstart-protected-client-port 6200\n"
                "end-protected-client-port 6203\ndone\nexit\nexit\nsession-router\nsip-interface\n"
                "realm-id access\nsec-agree-feature enabled\nsip-ports\naddress 10.1.0.1\n"
                "ims-aka-profile volte\ndone\nexit\ndone\n")
              .status == 0);
    CHECK(contents(fresh).find("realm-id = \"access\"") != std::string::npos);
    options.activate = []() -> Result<std::string> { return failure(Reaction::broken, "nobody answers"); };
    CHECK(piped(options, core + "exit\nexit\nexit\nactivate-config\n").status == 1);
}

TEST_CASE("The file is replaced whole: mode and link kept, nothing left beside it, not over somebody else's change") {
    Folder folder;
    const auto real = folder.path + "/real.toml", link = folder.path + "/gmgate.toml";
    put(real, "a = 1\n");
    REQUIRE(chmod(real.c_str(), 0600) == 0);
    std::filesystem::create_symlink("real.toml", link);
    auto file = File::open(link);
    REQUIRE(file.has_value());
    CHECK(file->text() == "a = 1\n");
    REQUIRE(file->replace("a = 2\n"));
    CHECK(contents(real) == "a = 2\n");
    CHECK(std::filesystem::is_symlink(link));
    struct stat now {};
    REQUIRE(stat(real.c_str(), &now) == 0);
    CHECK((now.st_mode & 0777) == 0600);
    CHECK(std::distance(std::filesystem::directory_iterator(folder.path), {}) == 2);
    put(real, "a = 3\n");
    const auto late = file->replace("a = 4\n");
    REQUIRE_FALSE(late.has_value());
    CHECK(late.error().reaction == Reaction::refused);
    CHECK(contents(real) == "a = 3\n");
    auto fresh = File::open(folder.path + "/new.toml");
    REQUIRE(fresh.has_value());
    REQUIRE(fresh->replace("b = 1\n"));
    CHECK(contents(folder.path + "/new.toml") == "b = 1\n");
    CHECK_FALSE(File::open(folder.path).has_value());
}
