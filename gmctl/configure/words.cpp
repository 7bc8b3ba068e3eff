#include "gmctl/configure/words.h"

#include <strings.h>

#include <algorithm>
#include <iterator>

#include <fmt/format.h>

#include "gmctl/configure/document.h"

namespace gmgate::daemon::configure {
namespace {

// The parts of a list, however it was typed: 6100 6101, "6100, 6101", [6100,6101], (6100 6101).
std::vector<std::string> parts_of(const std::vector<std::string>& values) {
    std::vector<std::string> parts;
    for (const auto& value : values) {
        std::string part;
        const auto finish = [&] {
            if (!part.empty()) parts.push_back(part);
            part.clear();
        };
        for (const char c : value) {
            if (std::string_view(",()[] ").contains(c)) finish();
            else part += c;
        }
        finish();
    }
    return parts;
}

// An IPv6 address with a port has brackets of its own.
bool is_bracketed_address(const std::string& value) {
    return value.starts_with('[') && value.find("]:") != std::string::npos;
}

bool is_number(std::string_view text) {
    if (text.starts_with("0x"))
        return text.size() > 2 && text.find_first_not_of("0123456789abcdefABCDEF", 2) == std::string_view::npos;
    return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos &&
           (text.size() == 1 || text.front() != '0');
}

std::string as_known(const Parameter& parameter, const std::string& word) {
    for (const auto& known : parameter.words)
        if (strcasecmp(known.c_str(), word.c_str()) == 0) return known;
    return word;
}

std::string list_of(const std::vector<std::string>& values) {
    return values.size() == 1 ? values.front() : fmt::format("[{}]", fmt::join(values, ", "));
}

}  // namespace

Result<std::vector<std::string>> split_words(std::string_view line) {
    std::vector<std::string> words;
    std::string word;
    bool in_word = false, in_quotes = false;
    for (const char c : line) {
        const bool is_space = c == ' ' || c == '\t' || c == '\r' || c == '\n';
        if (c == '"') {
            in_quotes = !in_quotes;
            in_word = true;
        } else if (is_space && !in_quotes) {
            if (in_word) words.push_back(word);
            word.clear();
            in_word = false;
        } else {
            word += c;
            in_word = true;
        }
    }
    if (in_quotes) return failure(Reaction::reject, "a quote is not closed");
    if (in_word) words.push_back(word);
    return words;
}

std::vector<std::string> matching(const std::vector<std::string>& names, const std::string& typed) {
    if (std::ranges::find(names, typed) != names.end()) return {typed};
    return beginning_with(names, typed);
}

std::vector<std::string> beginning_with(const std::vector<std::string>& names, std::string_view typed) {
    std::vector<std::string> out;
    for (const auto& name : names)
        if (name.starts_with(typed) && std::ranges::find(out, name) == out.end()) out.push_back(name);
    return out;
}

bool are_edits(const Parameter& parameter, const std::vector<std::string>& values) {
    const bool is_list =
        parameter.kind == Kind::texts || parameter.kind == Kind::words || parameter.kind == Kind::numbers;
    return is_list && !values.empty() && std::ranges::all_of(values, [](const std::string& value) {
               return value.size() > 1 && (value.front() == '+' || value.front() == '-');
           });
}

Result<std::vector<std::string>> edited_list(const Parameter& parameter, std::string_view now,
                                             const std::vector<std::string>& edits) {
    const auto words = split_words(now);
    if (!words) return std::unexpected(words.error());
    std::vector<std::string> list;
    for (const auto& word : *words)
        if (is_bracketed_address(word)) list.push_back(word);
        else std::ranges::move(parts_of({word}), std::back_inserter(list));
    for (const auto& edit : edits) {
        const auto value = as_known(parameter, edit.substr(1));
        const auto at = std::ranges::find(list, value);
        if (edit.front() == '+') {
            if (at == list.end()) list.push_back(value);
        } else if (at == list.end()) {
            return failure(Reaction::reject,
                           fmt::format("{} has no {}; it is: {}", parameter.name, value, fmt::join(list, " ")));
        } else {
            list.erase(at);
        }
    }
    if (list.empty())
        return failure(Reaction::reject,
                       fmt::format("{0} would be empty; no {0} takes it back to its default", parameter.name));
    return list;
}

Result<std::string> in_toml(const Parameter& parameter, const std::vector<std::string>& values) {
    const auto refused = [&](std::string_view takes) {
        return failure(Reaction::reject, fmt::format("{} takes {}", parameter.name, takes));
    };
    const bool is_list =
        parameter.kind == Kind::texts || parameter.kind == Kind::words || parameter.kind == Kind::numbers;
    if (!is_list && values.size() != 1) return refused("one value; put it in quotes when it has blanks");
    std::vector<std::string> out;
    switch (parameter.kind) {
        case Kind::boolean: {
            const auto word = as_known(parameter, values.front());
            if (word == "true" || word == "false") return word;
            if (word == "enabled" || word == "disabled") return quoted(word);
            return refused("enabled or disabled (or true, false)");
        }
        case Kind::number:
            if (!is_number(values.front()))
                return refused(parameter.takes.empty() ? "a whole number" : parameter.takes);
            return values.front();
        case Kind::numbers:
            for (const auto& part : parts_of(values)) {
                if (!is_number(part)) return refused(parameter.takes);
                out.push_back(part);
            }
            break;
        case Kind::text:
        case Kind::word:
            return quoted(as_known(parameter, values.front()));
        case Kind::texts:
        case Kind::words:
            for (const auto& value : values) {
                if (is_bracketed_address(value)) out.push_back(quoted(value));
                else
                    for (const auto& part : parts_of({value})) out.push_back(quoted(as_known(parameter, part)));
            }
            break;
    }
    if (out.empty()) return refused("at least one value");
    return list_of(out);
}

std::string without_quotes(std::string_view value) {
    std::string out;
    for (const char c : value)
        if (!std::string_view("\"[]").contains(c)) out += c;
    return out;
}

}  // namespace gmgate::daemon::configure
