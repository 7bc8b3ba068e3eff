// Readers of SIP that know nothing of sip/: each takes a message apart in its own crude way, as parsers in the field
// do. What the gateway writes must say the same to all of them.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace gmgate::fuzz {

struct CrudeReader {
    bool takes_lf = false;     ///< a bare LF ends a line, too
    bool takes_last = false;   ///< of several fields or parameters the last one counts, else the first one
    bool knows_quotes = true;  ///< quoted strings are one thing
};
inline constexpr std::array<CrudeReader, 8> kCrudeReaders{{{false, false, true},
                                                           {false, true, true},
                                                           {true, false, true},
                                                           {true, true, true},
                                                           {false, false, false},
                                                           {false, true, false},
                                                           {true, false, false},
                                                           {true, true, false}}};

inline std::string trimmed(std::string_view text) {
    const auto begin = text.find_first_not_of(" \t\r\n");
    if (begin == std::string_view::npos) return {};
    return std::string(text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1));
}
inline std::string lowered(std::string text) {
    for (char& c : text)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
    return text;
}

/// A message as one reader sees it.
struct CrudeMessage {
    std::string start_line;
    std::vector<std::pair<std::string, std::string>> fields;  ///< name in lower case, value; folds joined
    std::optional<std::string> body;                          ///< nothing: the header never ended

    static CrudeMessage read(std::string_view text, const CrudeReader& reader) {
        CrudeMessage out;
        for (std::size_t at = 0, number = 0; at < text.size(); ++number) {
            const auto end = text.find(reader.takes_lf ? "\n" : "\r\n", at);
            if (end == std::string_view::npos) return out;
            std::string_view line = text.substr(at, end - at);
            at = end + (reader.takes_lf ? 1 : 2);
            if (reader.takes_lf && line.ends_with('\r')) line.remove_suffix(1);
            if (line.empty()) {
                out.body = std::string(text.substr(at));
                return out;
            }
            if (number == 0) out.start_line = line;
            else out.take(line);
        }
        return out;
    }
    std::vector<std::string> all(std::string_view name, std::string_view compact = "-") const {
        std::vector<std::string> values;
        for (const auto& [found, value] : fields)
            if (found == name || found == compact) values.push_back(value);
        return values;
    }
    bool has(std::string_view name, std::string_view compact = "-") const { return !all(name, compact).empty(); }

private:
    void take(std::string_view line) {
        if ((line[0] == ' ' || line[0] == '\t') && !fields.empty()) {
            fields.back().second += ' ' + trimmed(line);
            return;
        }
        const auto colon = line.find(':');
        if (colon == std::string_view::npos) return;
        fields.emplace_back(lowered(trimmed(line.substr(0, colon))), trimmed(line.substr(colon + 1)));
    }
};

/// All values of one parameter of a value whose parameters are separated by `separator`, without quotes.
inline std::vector<std::string> crude_parameters(std::string_view text, std::string_view name, char separator,
                                                 const CrudeReader& reader) {
    std::vector<std::string> values;
    bool quoted = false;
    for (std::size_t i = 0, begin = 0; i <= text.size(); ++i) {
        if (i < text.size() && text[i] == '"') quoted = !quoted;
        if (i < text.size() && (text[i] != separator || (quoted && reader.knows_quotes))) continue;
        const auto part = text.substr(begin, i - begin);
        begin = i + 1;
        const auto equal = part.find('=');
        if (equal == std::string_view::npos) continue;
        auto word = lowered(trimmed(part.substr(0, equal)));
        if (const auto blank = word.find_last_of(" \t"); blank != std::string::npos) word.erase(0, blank + 1);
        if (word != name) continue;
        auto value = trimmed(part.substr(equal + 1));
        if (value.starts_with('"')) value = value.substr(1, value.find('"', 1) - 1);
        values.push_back(value);
    }
    return values;
}

/// The URI of a From or To value.
inline std::string crude_address(std::string_view value, const CrudeReader& reader) {
    std::size_t open = std::string_view::npos;
    bool quoted = false;
    for (std::size_t i = 0; i < value.size(); ++i) {
        if (reader.knows_quotes && quoted && value[i] == '\\') ++i;
        else if (value[i] == '"') quoted = !quoted;
        else if (value[i] == '<' && !(quoted && reader.knows_quotes) &&
                 (open == std::string_view::npos || reader.takes_last))
            open = i;
    }
    if (open != std::string_view::npos) return trimmed(value.substr(open + 1, value.find('>', open) - open - 1));
    if (const auto comma = value.find(','); comma != std::string_view::npos)
        return trimmed(reader.takes_last ? value.substr(value.rfind(',') + 1) : value.substr(0, comma));
    return trimmed(value.substr(0, value.find(';')));
}

}  // namespace gmgate::fuzz
