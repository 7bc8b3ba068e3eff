// Programs under test: started in a namespace, watched line by line, ended by their own id, never left behind.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <sys/types.h>

namespace gmgate::test {

class Namespace;

/// How long a test waits for something that happens at once on a healthy machine; generous, because guests can be slow.
inline constexpr std::chrono::seconds kPatience{60};

struct ProgramOptions {
    std::vector<std::string> command;    ///< looked up in PATH
    std::string name{};                  ///< for messages; empty: the command's first word
    const Namespace* network = nullptr;  ///< null: the caller's
};

/// A running program. Output of both streams is collected by a thread, so the program never blocks on a full pipe.
/// Waits throw std::runtime_error that shows the last lines of output. It is killed when the object is destroyed, and
/// by the kernel when the test itself dies.
class Program {
public:
    explicit Program(ProgramOptions options);
    Program(const Program&) = delete;
    Program& operator=(const Program&) = delete;
    ~Program();

    const std::string& name() const { return name_; }
    pid_t pid() const { return pid_; }

    void write(std::string_view text);
    void write_line(const std::string& line) { write(line + "\n"); }
    void close_input();

    /// Number of lines seen so far; a place to start searching from.
    std::size_t line_count() const;
    std::vector<std::string> lines(std::size_t from = 0) const;
    /// The first line from `from` on that `wanted` accepts, with its index. Throws at the deadline or when the program
    /// has ended without one.
    struct Line {
        std::size_t index;
        std::string text;
    };
    Line wait_for_line(const std::function<bool(const std::string&)>& wanted, const std::string& description,
                       std::size_t from = 0, std::chrono::seconds patience = kPatience) const;
    Line wait_for_text(const std::string& text, std::size_t from = 0, std::chrono::seconds patience = kPatience) const;
    bool has_text(const std::string& text, std::size_t from = 0) const;
    /// Both streams, oldest first.
    std::string output() const;

    bool is_running();
    /// Exit status (128 + n for signal n); throws at the deadline.
    int wait(std::chrono::seconds patience = kPatience);
    /// SIGTERM, then waits.
    int terminate(std::chrono::seconds patience = kPatience);
    /// SIGKILL, then waits.
    void kill();

    /// The end of the output, for messages.
    std::string tail(std::size_t count = 40) const;

private:
    struct Stream {
        int fd = -1;
        std::string partial;
    };
    void collect();
    void take(Stream& stream);

    std::string name_;
    pid_t pid_ = -1;
    std::optional<int> status_;
    int input_ = -1;
    Stream out_, err_;
    mutable std::mutex mutex_;
    mutable std::condition_variable changed_;
    std::vector<std::string> lines_;
    bool closed_ = false;
    std::thread collector_;
};

/// Runs to the end and returns the output; throws when the exit status is not 0.
std::string run_program(ProgramOptions options, std::string_view input = {}, std::chrono::seconds patience = kPatience);

/// Asks again and again, giving way in between, until `condition` is true or the deadline has passed.
bool eventually(const std::function<bool()>& condition, std::chrono::seconds patience = kPatience);

}  // namespace gmgate::test
