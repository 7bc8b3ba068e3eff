#include "base/log.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <mutex>
#include <utility>
#include <vector>

#include "base/log_format.h"
#include "base/log_limit.h"

namespace gmgate::log {
namespace {

std::atomic<Level> g_level{Level::info};
std::atomic<bool> g_prefixes{false};
std::atomic<Format> g_format{Format::text};

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

/// journald's own socket. Addressed anew by each message: it outlives a restart of journald.
class Journal {
public:
    bool open(const std::string& path) {
        const int before = fd_.exchange(-1);
        if (before >= 0) ::close(before);
        if (path.empty() || path.size() >= sizeof address_.sun_path) return false;
        address_.sun_family = AF_UNIX;
        std::strncpy(address_.sun_path, path.c_str(), sizeof address_.sun_path - 1);
        fd_ = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        return fd_ >= 0;
    }
    bool is_open() const { return fd_ >= 0; }
    bool put(std::string_view fields) const {
        return ::sendto(fd_, fields.data(), fields.size(), MSG_DONTWAIT | MSG_NOSIGNAL,
                        reinterpret_cast<const sockaddr*>(&address_),
                        sizeof address_) == static_cast<ssize_t>(fields.size());
    }

private:
    std::atomic<int> fd_{-1};
    sockaddr_un address_{};
};

Journal g_journal;

/// "2026-11-28T09:18:50.123Z"
std::string time_stamp() {
    const auto now = std::chrono::system_clock::now();
    const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
    const auto thousandths =
        std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
    std::tm parts{};
    char text[32] = "?";
    if (gmtime_r(&seconds, &parts) != nullptr) std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
    return fmt::format("{}.{:03}Z", text, thousandths);
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
    return (g_prefixes ? std::string(name.prefix) : fmt::format("{} {:<7} ", time_stamp(), name.word)) +
           std::string(id);
}

/// Printable ASCII as it is, the rest as \xHH; cut.
std::string plain(std::string_view value) {
    std::string out;
    for (const char c : value.substr(0, kValueLimit)) {
        const auto u = static_cast<unsigned char>(c);
        if (u < 0x20 || u >= 0x7f || c == '\\' || c == '"') out += fmt::format("\\x{:02x}", u);
        else out += c;
    }
    if (value.size() > kValueLimit) out += "...";
    return out;
}

struct Part {
    std::string_view key, value;
};
using Parts = std::vector<Part>;

std::string text_line(std::string start, const Parts& parts) {
    for (const auto& [key, value] : parts) {
        start += ' ';
        start += key;
        start += '=';
        start += escape(value);
    }
    return start;
}

// plain() leaves nothing but its own backslashes to be escaped. An object stays one: fields that have no room go.
std::string json_line(Level level, std::string_view id, const Parts& parts) {
    constexpr std::size_t kEnd = 32;  // of what closes it
    const auto name = name_of(level);
    auto line = fmt::format(R"({}{{"time":"{}","level":"{}","id":"{}")", g_prefixes ? name.prefix : "", time_stamp(),
                            name.word, id);
    for (const auto& [key, value] : parts) {
        std::string member = fmt::format(R"(,"{}":")", key);
        for (const char c : plain(value)) member += c == '\\' ? std::string("\\\\") : std::string(1, c);
        member += '"';
        if (line.size() + member.size() + kEnd > kLineLimit) return line + R"(,"cut":"true"})";
        line += member;
    }
    return line + '}';
}

// Names of fields are capitals, digits and underscores. Those that journald or its readers give a meaning are not ours.
std::string journal_fields(Level level, std::string_view id, const Parts& parts) {
    constexpr std::array<std::string_view, 7> kTheirs{"MESSAGE", "MESSAGE_ID",    "PRIORITY",         "ERRNO",
                                                      "UNIT",    "INVOCATION_ID", "SYSLOG_IDENTIFIER"};
    auto out = fmt::format("MESSAGE={}\nPRIORITY={}\nSYSLOG_IDENTIFIER=gmgated\nGMGATE_ID={}\n",
                           text_line(std::string(id), parts), name_of(level).prefix[1], id);
    for (const auto& [key, value] : parts) {
        std::string name(key.substr(0, 60));
        std::ranges::transform(name, name.begin(), [](char c) {
            return c >= 'a' && c <= 'z'                               ? static_cast<char>(c - 'a' + 'A')
                   : (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ? c
                                                                      : '_';
        });
        if (std::ranges::find(kTheirs, name) != kTheirs.end()) name = "GMGATE_" + name;
        out += fmt::format("{}={}\n", name, plain(value));
    }
    return out;
}

void put(Level level, std::string_view id, const Parts& parts) {
    if (g_format == Format::json) return g_output.put(json_line(level, id, parts));
    if (g_journal.is_open() && g_journal.put(journal_fields(level, id, parts))) return;
    g_output.put(text_line(line_of(level, id), parts));
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
    g_output.open();
}

void set_format(Format format) { g_format = format; }

bool use_journal(const std::string& socket) { return g_journal.open(socket); }

std::string escape(std::string_view value) {
    auto out = plain(value);
    const bool has_blank = value.substr(0, kValueLimit).find_first_of(" =") != std::string_view::npos;
    return value.empty() || has_blank ? "\"" + out + "\"" : out;
}

void write(Level level, std::string_view id, std::initializer_list<Field> fields) {
    if (level < g_level.load(std::memory_order_relaxed)) return;
    if (const auto lost = g_output.take_lost(); lost != 0)
        log::warning("log-lines-lost", {{"count", lost}, {"why", "nobody read the log fast enough"}});
    tell_held_lines();
    if (!may_write(level, id)) return;
    Parts parts;
    parts.reserve(fields.size());
    for (const auto& field : fields) parts.push_back({field.key, field.value});
    put(level, id, parts);
}

void tell_held_lines() {
    const auto now = std::chrono::steady_clock::now();
    struct Told {
        Level level;
        std::string id, lines;
    };
    std::vector<Told> lines;
    {
        const std::lock_guard lock(limited().mutex);
        for (const auto level : {Level::info, Level::notice, Level::warning, Level::error})
            for (const auto& held : limited().limits[static_cast<std::size_t>(level)].held(now))
                lines.push_back({level, held.id, std::to_string(held.lines)});
    }
    for (const auto& line : lines) put(line.level, line.id, {{"more", line.lines}});
}

}  // namespace gmgate::log
