#include "base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <memory>

namespace gmgate::log {
namespace {

std::atomic<Level> g_level{Level::info};
std::atomic<bool> g_prefixes{false};

spdlog::logger& logger() {
    static const auto instance = [] {
        auto made = std::make_shared<spdlog::logger>("gmgate", std::make_shared<spdlog::sinks::stderr_sink_mt>());
        made->set_pattern("%Y-%m-%dT%H:%M:%S.%e %v");
        made->set_level(spdlog::level::trace);
        return made;
    }();
    return *instance;
}

struct LevelName {
    const char* word;
    const char* prefix;
    spdlog::level::level_enum spd;
};

LevelName name_of(Level level) {
    switch (level) {
        case Level::debug:
            return {"debug", "<7>", spdlog::level::debug};
        case Level::info:
            return {"info", "<6>", spdlog::level::info};
        case Level::notice:
            return {"notice", "<5>", spdlog::level::info};
        case Level::warning:
            return {"warning", "<4>", spdlog::level::warn};
        case Level::error:
            return {"error", "<3>", spdlog::level::err};
    }
    return {"?", "", spdlog::level::err};
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
    if (journald_prefixes) logger().set_pattern("%v");
    logger().flush_on(spdlog::level::trace);
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
    const auto name = name_of(level);
    std::string line = g_prefixes ? name.prefix : fmt::format("{:<7} ", name.word);
    line += id;
    for (const auto& field : fields) {
        line += ' ';
        line += field.key;
        line += '=';
        line += escape(field.value);
    }
    logger().log(name.spd, "{}", line);
}

}  // namespace gmgate::log
