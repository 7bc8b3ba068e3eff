#include "gmctl/configure/schema.h"

#include <algorithm>
#include <map>
#include <sstream>

#include <fmt/format.h>

#include "daemon/config/config.h"

namespace gmgate::daemon::configure {
namespace {

constexpr std::string_view kProbe = "gm-probe";

std::string_view trimmed(std::string_view text) {
    const auto first = text.find_first_not_of(" \t\r");
    if (first == std::string_view::npos) return {};
    return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

std::vector<std::string> lines_of(std::string_view text) {
    std::vector<std::string> out;
    std::istringstream in{std::string(text)};
    for (std::string line; std::getline(in, line);) out.push_back(line);
    return out;
}

// Mistakes that the parser finds, each without "NAME:LINE:COLUMN: ".
std::vector<std::string> mistakes_in(const std::string& text) {
    std::vector<std::string> out;
    const auto config = parse_config(text, std::string(kProbe));
    if (config) return out;
    for (const auto& line : lines_of(config.error().text)) {
        const auto at = line.find(": ");
        out.push_back(at == std::string::npos ? line : line.substr(at + 2));
    }
    return out;
}

// --- The sample
// ------------------------------------------------------------------------------------------

struct SampleKey {
    std::string key, fallback, help;
};
using Sample = std::map<std::string, std::vector<SampleKey>>;  // by "sip-interface.sip-ports"; "" is the top level

bool is_key(std::string_view key) {
    return !key.empty() && std::ranges::all_of(key, [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
    });
}

// Where the comment behind a value begins: a # outside quotes.
std::size_t comment_in(std::string_view text) {
    bool quoted = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '"') quoted = !quoted;
        if (text[i] == '#' && !quoted) return i;
    }
    return std::string_view::npos;
}

struct SampleReader {
    Sample sample;
    std::map<std::string, std::string> help;  // of the elements
    std::string section;
    std::string above;  // comment of the line above
    SampleKey* last = nullptr;

    void read(std::string_view line) {
        auto text = trimmed(line);
        const bool is_comment = text.starts_with('#');
        if (is_comment && line.find('#') >= 8) {  // goes on with the comment above
            if (last) last->help += fmt::format(" {}", trimmed(text.substr(1)));
            return;
        }
        const bool is_default = text.starts_with("# ");
        if (is_comment) text = trimmed(text.substr(1));
        if (text.starts_with('[')) return header(text);
        const auto equals = text.find('=');
        const auto key = equals == std::string_view::npos ? std::string_view{} : trimmed(text.substr(0, equals));
        if (!is_key(key)) {
            above = is_comment ? std::string(text) : std::string{};
            last = nullptr;
            return;
        }
        const auto rest = text.substr(equals + 1);
        const auto comment = comment_in(rest);
        auto& keys = sample[section];
        if (std::ranges::find(keys, key, &SampleKey::key) != keys.end()) {
            last = nullptr;
        } else {
            keys.push_back(
                {std::string(key), is_default ? std::string(trimmed(rest.substr(0, comment))) : "",
                 comment == std::string_view::npos ? above : std::string(trimmed(rest.substr(comment + 1)))});
            last = &keys.back();
        }
        above.clear();
    }
    void header(std::string_view text) {
        const auto first = text.find_first_not_of('['), end = text.find(']');
        section = std::string(text.substr(first, end - first));
        const auto comment = text.find('#');
        if (!help.contains(section))
            help[section] = comment == std::string_view::npos ? above : std::string(trimmed(text.substr(comment + 1)));
        above.clear();
        last = nullptr;
    }
};

// --- The parser
// ------------------------------------------------------------------------------------------

// "a", "b" or "c" behind one of the phrases with which the parser tells what a key can be.
std::vector<std::string> words_in(std::string_view message) {
    for (const std::string_view phrase : {" is not one of ", " is none of ", "must be "}) {
        const auto at = message.find(phrase);
        if (at == std::string_view::npos) continue;
        std::vector<std::string> words;
        std::istringstream in{std::string(message.substr(at + phrase.size()))};
        for (std::string word; in >> word;) {
            if (word == "or") continue;
            if (word.ends_with(',')) word.pop_back();
            const bool is_quoted = word.size() > 2 && word.front() == '"' && word.back() == '"';
            if (is_quoted) word = word.substr(1, word.size() - 2);
            else if (phrase == "must be ") return {};
            if (word.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-") !=
                std::string::npos)
                return {};
            words.push_back(word);
        }
        return words;
    }
    return {};
}

class Prober {
public:
    explicit Prober(std::string_view sample) {
        for (const auto& line : lines_of(sample)) reader_.read(line);
    }

    // `headers` opens the element; `section` is its name in the sample.
    void fill(Element& element, const std::string& headers, const std::string& section) {
        std::vector<std::string> keys;
        const auto want = [&](const std::string& key) {
            if (std::ranges::find(keys, key) == keys.end()) keys.push_back(key);
        };
        for (const auto& key : reader_.sample[section]) want(key.key);
        const auto unknown = fmt::format("{}: unknown key \"{}\"; known here: ", element.title, kProbe);
        for (const auto& mistake : mistakes_in(fmt::format("{}{} = 0\n", headers, kProbe)))
            if (mistake.starts_with(unknown)) {
                std::istringstream in(mistake.substr(unknown.size()));
                for (std::string key; in >> key;) want(key.ends_with(',') ? key.substr(0, key.size() - 1) : key);
            }
        const auto by_table = answers(element, headers, keys, "{}"), by_number = answers(element, headers, keys, "0"),
                   by_text = answers(element, headers, keys, "\"gm-probe\"");
        for (const auto& key : keys) {
            const auto& said = by_number.at(key);
            if (const auto at = said.find("must be written [["); at != std::string::npos)
                add_child(element, headers, section, key, said.substr(at + 16), true);
            else if (const auto in = said.find("must be a table, written ["); in != std::string::npos)
                add_child(element, headers, section, key, said.substr(in + 25), false);
            else if (said.find("unknown key") == std::string::npos)
                element.parameters.push_back(parameter(section, key, by_table.at(key), by_text.at(key)));
        }
    }

    std::string help(const std::string& section) { return reader_.help[section]; }

private:
    // What the parser says of each key when it is given `value`.
    std::map<std::string, std::string> answers(const Element& element, const std::string& headers,
                                               const std::vector<std::string>& keys, std::string_view value) {
        auto text = headers;
        for (const auto& key : keys) text += fmt::format("{} = {}\n", key, value);
        const auto mistakes = mistakes_in(text);
        std::map<std::string, std::string> out;
        for (const auto& key : keys) {
            auto& said = out[key];
            for (const auto& mistake : mistakes) {
                if (mistake.starts_with(fmt::format("{}: {}: ", element.title, key)))
                    said += mistake.substr(element.title.size() + key.size() + 4) + "\n";
                if (mistake.starts_with(fmt::format("{}: unknown key \"{}\"", element.title, key)))
                    said += "unknown key\n";
            }
        }
        return out;
    }

    Parameter parameter(const std::string& section, const std::string& key, const std::string& by_table,
                        const std::string& by_text) {
        Parameter out;
        out.name = key;
        for (const auto& known : reader_.sample[section])
            if (known.key == key) out.fallback = known.fallback, out.help = known.help;
        for (const auto& line : lines_of(by_table + by_text))
            if (out.words.empty()) out.words = words_in(line);
        if (by_table.find("true, false") != std::string::npos) {
            out.kind = Kind::boolean;
            out.words = {"enabled", "disabled", "true", "false"};
        } else if (by_table.find("whole number") != std::string::npos) {
            out.kind = Kind::number;
            out.takes =
                by_table.substr(by_table.find("a whole number"), by_table.find('\n') - by_table.find("a whole number"));
        } else if (by_table.find("must be ports") != std::string::npos) {
            out.kind = Kind::numbers;
            out.takes = "ports from 1 to 65535";
        } else if (by_table.find("list of texts") != std::string::npos) {
            out.kind = out.words.empty() ? Kind::texts : Kind::words;
        } else {
            out.kind = out.words.empty() ? Kind::text : Kind::word;
        }
        return out;
    }

    void add_child(Element& element, const std::string& headers, const std::string& section, const std::string& key,
                   std::string title, bool is_list) {
        Element child{
            .name = key, .title = title, .group = "", .is_list = is_list, .help = "", .parameters = {}, .children = {}};
        const auto path = section.empty() ? key : section + "." + key;
        child.title = title.substr(0, title.find(']') + (is_list ? 2 : 1));
        child.help = reader_.help[path];
        fill(child, fmt::format("{}{}\n", headers, is_list ? fmt::format("[[{}]]", path) : fmt::format("[{}]", path)),
             path);
        element.children.push_back(std::move(child));
    }

    SampleReader reader_;
};

std::string group_of(const Element& element) {
    for (const std::string_view name : {"sip-interface", "core"})
        if (element.name == name) return "session-router";
    for (const std::string_view name : {"ims-aka-profile", "tls-profile", "xfrm"})
        if (element.name == name) return "security";
    return "system";
}

}  // namespace

const Parameter* Element::parameter(std::string_view key) const {
    const auto at = std::ranges::find(parameters, key, &Parameter::name);
    return at == parameters.end() ? nullptr : &*at;
}

std::string Element::identity() const {
    for (const auto* key : {"realm-id", "name", "address"})
        if (parameter(key)) return key;
    return parameters.empty() ? "" : parameters.front().name;
}

std::vector<const Element*> Schema::in_group(std::string_view group) const {
    std::vector<const Element*> out;
    for (const auto& element : elements)
        if (element.group == group) out.push_back(&element);
    return out;
}

Schema ask_parser(std::string_view sample) {
    Prober prober(sample);
    Element top{.name = std::string(kTopLevel),
                .title = "top level",
                .group = "",
                .is_list = false,
                .help = "settings of the whole gateway",
                .parameters = {},
                .children = {}};
    prober.fill(top, "", "");
    Schema schema;
    auto below = std::move(top.children);
    top.children.clear();
    schema.elements.push_back(std::move(top));
    for (auto& element : below) schema.elements.push_back(std::move(element));
    for (auto& element : schema.elements) element.group = group_of(element);
    return schema;
}

}  // namespace gmgate::daemon::configure
