// What can be configured: asked of the daemon's own parser (which keys an element knows, which words a key takes) and
// of the sample configuration (what a key means, and its default). So nothing here has to be kept in step with
// config.cpp.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace gmgate::daemon::configure {

enum class Kind { text, texts, number, numbers, boolean, word, words };

/// One key of an element.
struct Parameter {
    std::string name;
    Kind kind = Kind::text;
    std::vector<std::string> words;  ///< what it can be; empty: anything of its kind
    std::string takes;               ///< what the parser wants, in its words: "a whole number from 1 to 65535"
    std::string fallback;            ///< default, as written in the sample; empty: none
    std::string help;                ///< comment in the sample
};

/// One table of the file.
struct Element {
    std::string name;   ///< key, "sip-ports"
    std::string title;  ///< how the parser names it in messages, "[[sip-interface.sip-ports]]"
    std::string
        group;  ///< where the shell shows it: "session-router", "security", "system"; empty below another element
    bool is_list = false;  ///< [[…]]
    std::string help;
    std::vector<Parameter> parameters;
    std::vector<Element> children;

    const Parameter* parameter(std::string_view key) const;
    /// The key that tells one of several from the others: realm-id, name, address.
    std::string identity() const;
};

struct Schema {
    std::vector<Element> elements;  ///< the top level itself is the element "system-config"
    std::vector<const Element*> in_group(std::string_view group) const;
};

inline constexpr std::string_view kTopLevel = "system-config";
inline constexpr std::string_view kGroups[] = {"session-router", "security", "system"};

/// Asks the parser. `sample` is packaging/gmgate.toml.
Schema ask_parser(std::string_view sample);
/// packaging/gmgate.toml as it was when this program was built.
std::string_view sample_text();

}  // namespace gmgate::daemon::configure
