// A look at some header fields of a message that nobody has parsed yet, for what watches every message.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace gmgate::daemon {

/// ASCII.
inline char lower_case(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; }

/// The value, without blanks around it, when the line is a field of that name (in lower case); what is folded is not
/// joined.
inline std::optional<std::string_view> field_value(std::string_view line, std::string_view name) {
    if (line.size() <= name.size()) return std::nullopt;
    for (std::size_t i = 0; i < name.size(); ++i)
        if (lower_case(line[i]) != name[i]) return std::nullopt;
    line.remove_prefix(name.size());
    while (!line.empty() && (line.front() == ' ' || line.front() == '\t')) line.remove_prefix(1);
    if (line.empty() || line.front() != ':') return std::nullopt;
    line.remove_prefix(1);
    while (!line.empty() && (line.front() == ' ' || line.front() == '\t')) line.remove_prefix(1);
    while (!line.empty() && (line.back() == ' ' || line.back() == '\t' || line.back() == '\r')) line.remove_suffix(1);
    return line;
}

/// Calls `f` with each line of the header section, which is not empty, until it returns false.
template <class F>
void for_each_header_line(std::string_view bytes, F f) {
    for (std::size_t at = bytes.find('\n'); at != std::string_view::npos;) {
        const auto end = bytes.find('\n', ++at);
        const auto line = bytes.substr(at, end == std::string_view::npos ? end : end - at);
        if (line.empty() || line == "\r" || !f(line)) return;
        at = end;
    }
}

}  // namespace gmgate::daemon
