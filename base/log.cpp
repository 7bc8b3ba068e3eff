#include "base/log.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <ctime>
#include <mutex>
#include <utility>
#include <vector>

#include "base/log_limit.h"

namespace gmgate::log {
namespace {

std::atomic<Level> g_level{Level::info};
std::atomic<bool> g_prefixes{false};

constexpr std::size_t kLineLimit = 4096;  // PIPE_BUF: a line of that size is written to a pipe whole or not at all

/// Where lines go: standard error. A reader that is slow or gone costs lines, never the time of the loop.
class Output {
public:
    void open();
    void put(std::string line);
    /// How many lines could not be written; 0 as well while there is no room to say so. They are forgotten with that.
    std::uint64_t take_lost() { return lost_ != 0 && has_room() ? lost_.exchange(0) : 0; }

private:
    bool has_room() const;
    bool write(std::string_view line) const;

    std::atomic<int> fd_{STDERR_FILENO};
    std::atomic<bool> is_socket_{false};
    std::atomic<std::uint64_t> lost_{0};
};

// A pipe is opened once more: O_NONBLOCK belongs to the open file, and that of standard error is shared with whoever
// started us.
void Output::open() {
    struct stat status {};
    if (::fstat(STDERR_FILENO, &status) != 0) return;
    is_socket_ = S_ISSOCK(status.st_mode);  // the journal's
    int own = STDERR_FILENO;
    if (S_ISFIFO(status.st_mode)) own = ::open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (own < 0) own = STDERR_FILENO;
    if (const int before = fd_.exchange(own); before != STDERR_FILENO) ::close(before);
}

bool Output::has_room() const {
    pollfd room{fd_, POLLOUT, 0};
    return ::poll(&room, 1, 0) == 1 && (room.revents & POLLOUT) != 0;
}

bool Output::write(std::string_view line) const {
    const int fd = fd_;
    if (!has_room()) return false;
    const ssize_t count = is_socket_ ? ::send(fd, line.data(), line.size(), MSG_DONTWAIT | MSG_NOSIGNAL)
                                     : ::write(fd, line.data(), line.size());
    return count == static_cast<ssize_t>(line.size());
}

void Output::put(std::string line) {
    if (line.size() >= kLineLimit) line.resize(kLineLimit - 1);
    line += '\n';
    if (!write(line)) ++lost_;
}

Output g_output;

/// "2026-11-28T09:18:50.123 ", local time.
std::string time_stamp() {
    const auto now = std::chrono::system_clock::now();
    const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
    const auto thousandths =
        std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
    std::tm parts{};
    char text[32] = "?";
    if (localtime_r(&seconds, &parts) != nullptr) std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
    return fmt::format("{}.{:03} ", text, thousandths);
}

struct LevelName {
    const char* word;
    const char* prefix;
};

LevelName name_of(Level level) {
    switch (level) {
        case Level::debug:
            return {"debug", "<7>"};
        case Level::info:
            return {"info", "<6>"};
        case Level::notice:
            return {"notice", "<5>"};
        case Level::warning:
            return {"warning", "<4>"};
        case Level::error:
            return {"error", "<3>"};
    }
    return {"?", ""};
}

std::string line_of(Level level, std::string_view id) {
    const auto name = name_of(level);
    return (g_prefixes ? std::string(name.prefix) : time_stamp() + fmt::format("{:<7} ", name.word)) + std::string(id);
}

/// Of all threads. By level: refusals, which strangers cause, take nothing from the lines about good phones.
struct Limited {
    std::mutex mutex;
    std::array<LineLimit, 5> limits;
};
Limited& limited() {
    static Limited instance;
    return instance;
}

// Whoever asks for debug lines wants them all.
bool may_write(Level level, std::string_view id) {
    if (level == Level::debug) return true;
    const std::lock_guard lock(limited().mutex);
    return limited().limits[static_cast<std::size_t>(level)].may_write(id, std::chrono::steady_clock::now());
}

}  // namespace

std::optional<Level> parse_level(std::string_view word) {
    if (word == "debug") return Level::debug;
    if (word == "info") return Level::info;
    if (word == "notice") return Level::notice;
    if (word == "warning") return Level::warning;
    if (word == "error") return Level::error;
    return std::nullopt;
}

void set_level(Level level) { g_level = level; }

void start(bool journald_prefixes) {
    g_prefixes = journald_prefixes;
    tzset();
    g_output.open();
}

std::string escape(std::string_view value) {
    std::string out;
    bool quote = value.empty();
    for (const char c : value.substr(0, kValueLimit)) {
        const auto u = static_cast<unsigned char>(c);
        if (u < 0x20 || u >= 0x7f || c == '\\' || c == '"') {
            out += fmt::format("\\x{:02x}", u);
        } else {
            quote = quote || c == ' ' || c == '=';
            out += c;
        }
    }
    if (value.size() > kValueLimit) out += "...";
    return quote ? "\"" + out + "\"" : out;
}

void write(Level level, std::string_view id, std::initializer_list<Field> fields) {
    if (level < g_level.load(std::memory_order_relaxed)) return;
    if (const auto lost = g_output.take_lost(); lost != 0)
        log::warning("log-lines-lost", {{"count", lost}, {"why", "nobody read the log fast enough"}});
    tell_held_lines();
    if (!may_write(level, id)) return;
    std::string line = line_of(level, id);
    for (const auto& field : fields) {
        line += ' ';
        line += field.key;
        line += '=';
        line += escape(field.value);
    }
    g_output.put(std::move(line));
}

void tell_held_lines() {
    const auto now = std::chrono::steady_clock::now();
    std::vector<std::string> lines;
    {
        const std::lock_guard lock(limited().mutex);
        for (const auto level : {Level::info, Level::notice, Level::warning, Level::error})
            for (const auto& held : limited().limits[static_cast<std::size_t>(level)].held(now))
                lines.push_back(fmt::format("{} more={}", line_of(level, held.id), held.lines));
    }
    for (auto& line : lines) g_output.put(std::move(line));
}

}  // namespace gmgate::log
