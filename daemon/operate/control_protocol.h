// The language of the control socket: one JSON object a line in each direction.
//   request   {"command": "show", "arguments": {"of": "001010000000001@…"}}
//   answer    {"ok": true, "result": …}      or {"ok": false, "error": {"reason": "forbidden", "text": "…"}}
//   between   {"event": …}, any number of lines, from a command that follows something
#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace gmgate::daemon {

/// What a client of the control socket may do, by its credentials (SO_PEERCRED).
enum class Rights { none, read, admin };
std::string_view to_string(Rights rights);

struct ControlRequest {
    std::string command;
    nlohmann::json arguments = nlohmann::json::object();
};

/// Longest word or text that an argument may be.
inline constexpr std::size_t kArgumentLimit = 1024;

/// One line without its end. Errors (Reaction::reject) say what is wrong with it.
Result<ControlRequest> parse_request(std::string_view line);
/// An argument that is a text; `fallback` when it is absent. Error: it is something else, or too long.
Result<std::string> text_argument(const nlohmann::json& arguments, const char* name, std::string fallback = {});
/// The same for a whole number from `least` to `most`.
Result<std::int64_t> number_argument(const nlohmann::json& arguments, const char* name, std::int64_t fallback,
                                     std::int64_t least, std::int64_t most);
Result<bool> flag_argument(const nlohmann::json& arguments, const char* name);

/// Each is one line with its end; text that is no UTF-8 is replaced, never an exception.
std::string answer_line(const nlohmann::json& result);
std::string error_line(const Error& error);
std::string event_line(const nlohmann::json& event);

}  // namespace gmgate::daemon
