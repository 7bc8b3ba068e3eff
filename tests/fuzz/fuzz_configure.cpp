// Fuzz target: lines typed into `gmctl configure`. Whatever is typed, what is written to the file is a configuration
// that the daemon takes.
#include <string>

#include "daemon/config/config.h"
#include "gmctl/configure/session.h"
#include "tests/fuzz/require.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
    using namespace gmgate;
    using namespace gmgate::daemon::configure;
    using fuzz::require;
    static const std::string sample(sample_text());
    static const Schema schema = ask_parser(sample);
    static const bool is_valid = daemon::parse_config(sample, "sample").has_value();
    require(is_valid, "the sample is valid");
    auto document = Document::parse(sample, "sample");
    Session session(schema, std::move(*document), "sample", "gmgate", [](const std::string& text) -> Result<void> {
        require(daemon::parse_config(text, "written").has_value(), "only a valid configuration is written");
        return {};
    });
    std::string_view rest = fuzz::text_of(data, size);
    for (int lines = 0; lines < 40 && !rest.empty() && !session.is_over(); ++lines) {
        const auto end = std::min(rest.find('\n'), rest.size());
        const auto line = rest.substr(0, end);
        rest.remove_prefix(std::min(end + 1, rest.size()));
        require(!session.prompt().empty(), "there is always a prompt");
        (void)session.help(line);
        for (const auto& word : session.complete(line)) require(!word.empty(), "a completion is a word");
        (void)session.execute(line);
    }
    return 0;
}
