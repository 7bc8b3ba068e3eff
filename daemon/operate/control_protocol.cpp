#include "daemon/operate/control_protocol.h"

#include <fmt/format.h>

namespace gmgate::daemon {
namespace {

constexpr int kDepthLimit = 8;

std::string line_of(const nlohmann::json& value) {
    return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + '\n';
}

}  // namespace

std::string_view to_string(Rights rights) {
    switch (rights) {
        case Rights::none:
            return "none";
        case Rights::read:
            return "read-only";
        case Rights::admin:
            return "admin";
    }
    return "?";
}

Result<ControlRequest> parse_request(std::string_view line) {
    bool too_deep = false;
    const auto watch_depth = [&](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
        too_deep = too_deep || depth > kDepthLimit;
        return !too_deep;
    };
    const auto document = nlohmann::json::parse(line, watch_depth, false);
    if (too_deep) return failure(Reaction::reject, "the request is nested too deeply");
    if (document.is_discarded() || !document.is_object())
        return failure(Reaction::reject, "a request is one JSON object on one line");
    const auto command = document.find("command");
    if (command == document.end() || !command->is_string())
        return failure(Reaction::reject, "the request has no \"command\"");
    ControlRequest request;
    request.command = command->get<std::string>();
    if (request.command.size() > kArgumentLimit) return failure(Reaction::reject, "the command's name is too long");
    if (const auto arguments = document.find("arguments"); arguments != document.end()) {
        if (!arguments->is_object()) return failure(Reaction::reject, "\"arguments\" must be an object");
        request.arguments = *arguments;
    }
    return request;
}

Result<std::string> text_argument(const nlohmann::json& arguments, const char* name, std::string fallback) {
    const auto at = arguments.find(name);
    if (at == arguments.end()) return fallback;
    if (!at->is_string()) return failure(Reaction::reject, fmt::format("\"{}\" must be a text", name));
    auto text = at->get<std::string>();
    if (text.size() > kArgumentLimit)
        return failure(Reaction::reject, fmt::format("\"{}\" is longer than {} octets", name, kArgumentLimit));
    return text;
}

Result<std::int64_t> number_argument(const nlohmann::json& arguments, const char* name, std::int64_t fallback,
                                     std::int64_t least, std::int64_t most) {
    const auto at = arguments.find(name);
    if (at == arguments.end()) return fallback;
    const bool whole = at->is_number_integer() &&
                       !(at->is_number_unsigned() && at->get<std::uint64_t>() > static_cast<std::uint64_t>(most));
    if (!whole || at->get<std::int64_t>() < least || at->get<std::int64_t>() > most)
        return failure(Reaction::reject, fmt::format("\"{}\" must be a whole number from {} to {}", name, least, most));
    return at->get<std::int64_t>();
}

Result<bool> flag_argument(const nlohmann::json& arguments, const char* name) {
    const auto at = arguments.find(name);
    if (at == arguments.end()) return false;
    if (!at->is_boolean()) return failure(Reaction::reject, fmt::format("\"{}\" must be true or false", name));
    return at->get<bool>();
}

std::string answer_line(const nlohmann::json& result) { return line_of({{"ok", true}, {"result", result}}); }

std::string error_line(const Error& error) {
    return line_of({{"ok", false}, {"error", {{"reason", to_string(error.reaction)}, {"text", error.text}}}});
}

std::string event_line(const nlohmann::json& event) { return line_of({{"event", event}}); }

}  // namespace gmgate::daemon
