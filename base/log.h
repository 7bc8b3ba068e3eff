// Log façade: a line is an id from the catalogue (docs/log.md) followed by key=value pairs.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include <fmt/format.h>

namespace gmgate::log {

enum class Level { debug, info, notice, warning, error };

/// One key=value pair. Values from the network are escaped and cut to kValueLimit octets when the line is written.
struct Field {
    std::string_view key;
    std::string value;

    Field(std::string_view k, std::string_view v) : key(k), value(v) {}
    Field(std::string_view k, const std::string& v) : key(k), value(v) {}
    Field(std::string_view k, const char* v) : key(k), value(v) {}
    template <class Number>
    requires std::is_arithmetic_v<Number> Field(std::string_view k, Number v) : key(k), value(fmt::format("{}", v)) {}
};

inline constexpr std::size_t kValueLimit = 256;

/// "debug", "info", "notice", "warning", "error"; nullopt for any other word.
std::optional<Level> parse_level(std::string_view word);
/// Below this level nothing is written; default info.
void set_level(Level level);
/// `stderr` with priority prefixes that journald understands (<3>…), or plain with a time stamp when stderr is a
/// terminal or file.
void start(bool journald_prefixes);
/// Writes one line: `id key=value …`. `id` is constant text, data goes into fields only. Never pass key material.
void write(Level level, std::string_view id, std::initializer_list<Field> fields = {});

inline void debug(std::string_view id, std::initializer_list<Field> fields = {}) { write(Level::debug, id, fields); }
inline void info(std::string_view id, std::initializer_list<Field> fields = {}) { write(Level::info, id, fields); }
inline void notice(std::string_view id, std::initializer_list<Field> fields = {}) { write(Level::notice, id, fields); }
inline void warning(std::string_view id, std::initializer_list<Field> fields = {}) {
    write(Level::warning, id, fields);
}
inline void error(std::string_view id, std::initializer_list<Field> fields = {}) { write(Level::error, id, fields); }

/// `value` as it stands in a log line: printable ASCII, others as \xHH, cut, quoted when it has blanks.
std::string escape(std::string_view value);

}  // namespace gmgate::log
