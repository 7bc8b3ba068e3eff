#include "tests/support/process.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <stdexcept>
#include <system_error>

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/fail.h"
#include "tests/support/netns.h"

namespace gmgate::test {

namespace {

struct Pipe {
    int read_end = -1, write_end = -1;
    Pipe() {
        std::array<int, 2> ends{};
        if (pipe2(ends.data(), O_CLOEXEC) != 0) fail("pipe2");
        read_end = ends[0];
        write_end = ends[1];
    }
};

int decode_status(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status); }

/// Between fork and exec: async-signal-safe calls only.
[[noreturn]] void become(char* const* argv, int network, int in, int out, int err, pid_t parent) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(125);
    signal(SIGPIPE, SIG_DFL);  // as a shell or systemd starts it; ours is ignored, and that would be inherited
    if (network >= 0 && setns(network, CLONE_NEWNET) != 0) _exit(125);
    dup2(in, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    execvp(argv[0], argv);
    constexpr std::string_view problem = "the program could not be started\n";
    if (::write(STDERR_FILENO, problem.data(), problem.size()) < 0) _exit(126);
    _exit(127);
}

}  // namespace

Program::Program(ProgramOptions options) : name_(options.name.empty() ? options.command.at(0) : options.name) {
    // A program that ends early must not end the test through its input pipe.
    static const bool ignored = std::signal(SIGPIPE, SIG_IGN) != SIG_ERR;
    (void)ignored;
    std::vector<char*> argv;
    for (auto& word : options.command) argv.push_back(word.data());
    argv.push_back(nullptr);
    const int network = options.network != nullptr ? options.network->fd() : -1;
    const Pipe in, out, err;
    const pid_t parent = getpid();
    pid_ = fork();
    if (pid_ < 0) fail("fork " + name_);
    if (pid_ == 0) become(argv.data(), network, in.read_end, out.write_end, err.write_end, parent);
    close(in.read_end);
    close(out.write_end);
    close(err.write_end);
    input_ = in.write_end;
    out_.fd = out.read_end;
    err_.fd = err.read_end;
    collector_ = std::thread([this] { collect(); });
}

Program::~Program() {
    try {
        kill();
    } catch (...) {  // nothing left to do about it: the kernel kills it with us
    }
    if (collector_.joinable()) collector_.join();
    close_input();
    close(out_.fd);
    close(err_.fd);
}

void Program::take(Stream& stream) {
    std::array<char, 16384> buffer;
    const ssize_t got = read(stream.fd, buffer.data(), buffer.size());
    const std::lock_guard lock(mutex_);
    if (got <= 0) {
        if (got < 0 && errno == EINTR) return;
        if (!stream.partial.empty()) lines_.push_back(std::move(stream.partial));
        stream.partial.clear();
        stream.fd = -stream.fd - 2;  // remembered for close, ignored by poll
    } else {
        stream.partial.append(buffer.data(), static_cast<std::size_t>(got));
        std::size_t begin = 0;
        for (std::size_t end; (end = stream.partial.find('\n', begin)) != std::string::npos; begin = end + 1)
            lines_.push_back(stream.partial.substr(begin, end - begin));
        stream.partial.erase(0, begin);
    }
    changed_.notify_all();
}

void Program::collect() {
    while (out_.fd >= 0 || err_.fd >= 0) {
        std::array<pollfd, 2> fds{{{out_.fd, POLLIN, 0}, {err_.fd, POLLIN, 0}}};
        if (poll(fds.data(), fds.size(), -1) < 0 && errno != EINTR) break;
        if (fds[0].revents != 0) take(out_);
        if (fds[1].revents != 0) take(err_);
    }
    out_.fd = out_.fd < 0 ? -out_.fd - 2 : out_.fd;
    err_.fd = err_.fd < 0 ? -err_.fd - 2 : err_.fd;
    const std::lock_guard lock(mutex_);
    closed_ = true;
    changed_.notify_all();
}

void Program::write(std::string_view text) {
    while (!text.empty()) {
        const ssize_t done = ::write(input_, text.data(), text.size());
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) throw std::runtime_error(name_ + " does not read its input any more\n" + tail());
        text.remove_prefix(static_cast<std::size_t>(done));
    }
}

void Program::close_input() {
    if (input_ >= 0) close(input_);
    input_ = -1;
}

std::size_t Program::line_count() const {
    const std::lock_guard lock(mutex_);
    return lines_.size();
}

std::vector<std::string> Program::lines(std::size_t from) const {
    const std::lock_guard lock(mutex_);
    return {lines_.begin() + static_cast<std::ptrdiff_t>(std::min(from, lines_.size())), lines_.end()};
}

Program::Line Program::wait_for_line(const std::function<bool(const std::string&)>& wanted,
                                     const std::string& description, std::size_t from,
                                     std::chrono::seconds patience) const {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    std::unique_lock lock(mutex_);
    for (std::size_t next = from;;) {
        for (; next < lines_.size(); ++next)
            if (wanted(lines_[next])) return {next, lines_[next]};
        const char* reason = nullptr;
        if (closed_) reason = " ended without ";
        else if (changed_.wait_until(lock, deadline) == std::cv_status::timeout && next >= lines_.size())
            reason = " did not print ";
        if (reason != nullptr) {
            lock.unlock();
            throw std::runtime_error(name_ + reason + description + "; its output ends with\n" + tail());
        }
    }
}

Program::Line Program::wait_for_text(const std::string& text, std::size_t from, std::chrono::seconds patience) const {
    return wait_for_line([&](const std::string& line) { return line.find(text) != std::string::npos; },
                         "\"" + text + "\"", from, patience);
}

bool Program::has_text(const std::string& text, std::size_t from) const {
    return std::ranges::any_of(lines(from),
                               [&](const std::string& line) { return line.find(text) != std::string::npos; });
}

std::string Program::output() const {
    std::string all;
    for (const auto& line : lines()) all.append(line).push_back('\n');
    return all;
}

std::string Program::tail(std::size_t count) const {
    const auto all = lines();
    std::string text;
    for (std::size_t i = all.size() > count ? all.size() - count : 0; i < all.size(); ++i)
        text.append("  | ").append(all[i]).push_back('\n');
    return text;
}

bool Program::is_running() {
    if (status_) return false;
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) != pid_) return true;
    status_ = decode_status(status);
    return false;
}

int Program::wait(std::chrono::seconds patience) {
    if (!status_) {
        // A descriptor of the process can be waited for with a deadline; it becomes readable when the process ends.
        const int handle = static_cast<int>(syscall(SYS_pidfd_open, pid_, 0));
        if (handle < 0) fail("pidfd_open " + name_);
        pollfd ended{handle, POLLIN, 0};
        const auto deadline = std::chrono::steady_clock::now() + patience;
        int ready = 0;
        do {
            const auto left =
                std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
            ready = poll(&ended, 1, static_cast<int>(std::max<std::chrono::milliseconds::rep>(left.count(), 0)));
        } while (ready < 0 && errno == EINTR);
        close(handle);
        if (ready == 0) throw std::runtime_error(name_ + " did not end in time; its output ends with\n" + tail());
        int status = 0;
        if (waitpid(pid_, &status, 0) != pid_) fail("waitpid " + name_);
        status_ = decode_status(status);
    }
    // All output is there once both streams have ended; a grandchild that kept them open is not waited for.
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(2), [this] { return closed_; });
    return *status_;
}

int Program::terminate(std::chrono::seconds patience) {
    if (is_running()) ::kill(pid_, SIGTERM);
    return wait(patience);
}

void Program::kill() {
    if (is_running()) ::kill(pid_, SIGKILL);
    wait(std::chrono::seconds(10));
}

std::string run_program(ProgramOptions options, std::string_view input, std::chrono::seconds patience) {
    Program program(std::move(options));
    program.write(input);
    program.close_input();
    const int status = program.wait(patience);
    if (status != 0)
        throw std::runtime_error(program.name() + " failed with status " + std::to_string(status) + "\n" +
                                 program.tail());
    return program.output();
}

bool eventually(const std::function<bool()>& condition, std::chrono::seconds patience) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (!condition()) {
        if (std::chrono::steady_clock::now() > deadline) return false;
        poll(nullptr, 0, 20);
    }
    return true;
}

}  // namespace gmgate::test
