// Fuzz target: a line on the control socket, and what is written back. Every answer is one line of JSON, whatever
// octets the request held.
#include "daemon/operate/control_protocol.h"
#include "tests/fuzz/require.h"

namespace {

using gmgate::fuzz::require;

void check_line(const std::string& line, const char* key) {
    require(line.ends_with('\n') && line.find('\n') == line.size() - 1, "an answer is one line");
    const auto document = nlohmann::json::parse(line, nullptr, false);
    require(document.is_object() && document.contains(key), "an answer is a JSON object of its kind");
}

void check_arguments(const nlohmann::json& arguments) {
    using namespace gmgate::daemon;
    for (const char* name : {"of", "count", "a", ""}) {
        if (const auto text = text_argument(arguments, name, "x"))
            require(text->size() <= kArgumentLimit, "a text argument has a limit");
        if (const auto number = number_argument(arguments, name, 5, 1, 100))
            require(*number >= 1 && *number <= 100, "a number argument has a range");
        (void)flag_argument(arguments, name);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
    using namespace gmgate;
    using namespace gmgate::daemon;
    const auto line = fuzz::text_of(data, size);
    const auto request = parse_request(line);
    if (!request) {
        require(request.error().reaction == Reaction::reject && !request.error().text.empty(), "a refusal says why");
        check_line(error_line(request.error()), "error");
    } else {
        require(request->arguments.is_object(), "arguments are an object");
        check_arguments(request->arguments);
        check_line(answer_line(request->arguments), "ok");
        check_line(event_line(request->arguments), "event");
    }
    check_line(answer_line(std::string(line)), "ok");
    check_line(error_line(Error{Reaction::refused, 0, std::string(line)}), "error");
    return 0;
}
