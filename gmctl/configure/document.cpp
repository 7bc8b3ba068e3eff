#include "gmctl/configure/document.h"

#include <toml++/toml.h>

#include <algorithm>
#include <set>
#include <sstream>

#include <fmt/format.h>

namespace gmgate::daemon::configure {
namespace {

// toml++ counts lines from 1 and columns from 1 in code points; `end` lies one behind the last.
class Lines {
public:
    explicit Lines(std::string_view text) : text_(text) {
        starts_.push_back(0);
        for (std::size_t i = 0; i < text.size(); ++i)
            if (text[i] == '\n' && i + 1 < text.size()) starts_.push_back(i + 1);
    }
    std::size_t count() const { return text_.empty() ? 0 : starts_.size(); }
    std::size_t start(std::size_t line) const { return line > starts_.size() ? text_.size() : starts_[line - 1]; }
    std::string_view at(std::size_t line) const {  // without its end
        auto all = text_.substr(start(line), start(line + 1) - start(line));
        while (!all.empty() && (all.back() == '\n' || all.back() == '\r')) all.remove_suffix(1);
        return all;
    }
    std::size_t offset(const toml::source_position& place) const {
        auto at = start(place.line);
        for (auto column = place.column; column > 1 && at < text_.size(); --column) {
            ++at;
            while (at < text_.size() && (static_cast<unsigned char>(text_[at]) & 0xc0) == 0x80) ++at;
        }
        return at;
    }

private:
    std::string_view text_;
    std::vector<std::size_t> starts_;
};

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t") == std::string_view::npos; }
bool starts_with(std::string_view line, char c) {
    const auto at = line.find_first_not_of(" \t");
    return at != std::string_view::npos && line[at] == c;
}
bool is_comment(std::string_view line) { return starts_with(line, '#'); }
// The house's habit: a comment far to the right goes on with the one above it.
bool continues_comment(std::string_view line) { return is_comment(line) && line.find('#') >= 8; }
std::string_view bare_comment(std::string_view line) {  // what stands behind the #
    line.remove_prefix(line.find('#') + 1);
    const auto at = line.find_first_not_of(" \t");
    return at == std::string_view::npos ? std::string_view{} : line.substr(at);
}
bool is_commented_header(std::string_view line) {
    return is_comment(line) && !continues_comment(line) && bare_comment(line).starts_with('[');
}
bool is_commented_key(std::string_view line, std::string_view key) {
    if (!is_comment(line) || continues_comment(line)) return false;
    auto rest = bare_comment(line);
    if (!rest.starts_with(key)) return false;
    rest.remove_prefix(key.size());
    const auto at = rest.find_first_not_of(" \t");
    return at != std::string_view::npos && rest[at] == '=';
}

template <class Table>
Table* navigate(Table& root, const Path& path) {
    Table* table = &root;
    for (const auto& step : path) {
        auto* node = table->get(step.key);
        if (node && step.index) node = node->is_array() ? node->as_array()->get(*step.index) : nullptr;
        table = node ? node->as_table() : nullptr;
        if (!table) return nullptr;
    }
    return table;
}

// A table with a header of its own, `[x]` or `[[x]]`; not one that is written inline or by dotted keys.
bool has_header(const toml::table& table, const Lines& lines) {
    return !table.is_inline() && table.source().begin && starts_with(lines.at(table.source().begin.line), '[');
}

void collect_headers(const toml::node& node, const Lines& lines, std::set<std::size_t>& out) {
    if (const auto* table = node.as_table()) {
        if (has_header(*table, lines)) out.insert(table->source().begin.line);
        for (const auto& [key, inner] : *table) collect_headers(inner, lines, out);
    } else if (const auto* list = node.as_array()) {
        for (const auto& inner : *list) collect_headers(inner, lines, out);
    }
}

// Last line of a value or of anything below a table.
std::size_t last_line(const toml::node& node) {
    auto last = static_cast<std::size_t>(node.source().begin.line);
    if (const auto* table = node.as_table(); table && !table->is_inline()) {
        for (const auto& [key, inner] : *table) last = std::max(last, last_line(inner));
    } else if (const auto* list = node.as_array(); list && !list->empty() && list->is_array_of_tables()) {
        for (const auto& inner : *list) last = std::max(last, last_line(inner));
    }
    return std::max(last, static_cast<std::size_t>(node.source().end.line));
}

// The lines of a table's own keys: from behind its header to before the next header.
struct Body {
    std::size_t first, end;  // end: one behind
};
Body body_of(const toml::table& root, const toml::table& table, bool is_top, const Lines& lines) {
    std::set<std::size_t> headers;
    collect_headers(root, lines, headers);
    const std::size_t header = is_top ? 0 : table.source().begin.line;
    const auto next = headers.upper_bound(header);
    return {header + 1, next == headers.end() ? lines.count() + 1 : *next};
}

std::string joined(const Path& path, std::string_view key) {
    std::string name;
    for (const auto& step : path) name += step.key + ".";
    return name + std::string(key);
}

std::string shown(const toml::node& node) {
    if (const auto* list = node.as_array()) {
        std::string all;
        for (const auto& inner : *list) all.append(all.empty() ? "" : " ").append(shown(inner));
        return all;
    }
    if (const auto* text = node.as_string()) return text->get();
    if (const auto* flag = node.as_boolean()) return flag->get() ? "true" : "false";
    if (const auto* number = node.as_integer()) return std::to_string(number->get());
    std::ostringstream out;
    out << toml::node_view<const toml::node>{&node};
    return out.str();
}

std::unexpected<Error> stands_against(std::string_view what) {
    return failure(Reaction::reject, fmt::format("{}; edit the file by hand for this", what));
}

// An edit is good when the new text holds `expected` and nothing else.
Result<std::string> checked(std::string text, const toml::table& expected, const std::string& name) {
    try {
        if (toml::parse(text, name) == expected) return text;
    } catch (const toml::parse_error&) {}
    return stands_against("the way in which this part of the file is written does not allow the change");
}

std::string with_inserted(std::string_view text, std::size_t at, std::string_view line) {
    std::string out(text.substr(0, at));
    if (!out.empty() && out.back() != '\n') out += '\n';
    out += line;
    out += '\n';
    out += text.substr(at);
    return out;
}

// Where a new key of `table` goes: the line before which it is inserted, and its indentation.
std::pair<std::size_t, std::string> place_for(const toml::table& root, const toml::table& table, bool is_top,
                                              std::string_view key, const Lines& lines) {
    const auto body = body_of(root, table, is_top, lines);
    std::set<std::size_t> inside;  // lines within a value that goes over several
    std::size_t last = 0;
    std::string indentation;
    for (const auto& [name, node] : table) {
        const auto begin = static_cast<std::size_t>(name.source().begin.line);
        if (begin < body.first || begin >= body.end || starts_with(lines.at(begin), '['))
            continue;  // a table below it, with a header
        const auto end = last_line(node);
        for (auto line = begin + 1; line <= end; ++line) inside.insert(line);
        if (end >= last) {
            last = end;
            const auto text = lines.at(begin);
            indentation = std::string(text.substr(0, text.find_first_not_of(" \t")));
        }
    }
    auto after = last;
    if (last == 0) {
        after = body.first - 1;
        if (is_top)
            while (after + 1 < body.end && is_comment(lines.at(after + 1))) ++after;
    }
    for (auto line = body.first; line < body.end && !is_commented_header(lines.at(line)); ++line)
        if (!inside.contains(line) && is_commented_key(lines.at(line), key)) after = line;
    while (after + 1 < body.end && after > 0 && continues_comment(lines.at(after + 1))) ++after;
    return {after + 1, indentation};
}

}  // namespace

std::string quoted(std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') out += {'\\', c};
        else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
            out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
        else out += c;
    }
    return out + "\"";
}

Result<Document> Document::parse(std::string text, const std::string& name) {
    try {
        (void)toml::parse(text, name);
    } catch (const toml::parse_error& error) {
        return failure(Reaction::reject, fmt::format("{}:{}:{}: {}", name, error.source().begin.line,
                                                     error.source().begin.column, error.description()));
    }
    return Document(std::move(text), name);
}

bool Document::has(const Path& path) const {
    const auto root = toml::parse(text_, name_);
    return navigate(root, path) != nullptr;
}

std::size_t Document::count(const Path& parent, std::string_view key) const {
    const auto root = toml::parse(text_, name_);
    const auto* table = navigate(root, parent);
    const auto* list = table ? table->get_as<toml::array>(key) : nullptr;
    return list ? list->size() : 0;
}

std::optional<std::string> Document::value(const Path& path, std::string_view key) const {
    const auto root = toml::parse(text_, name_);
    const auto* table = navigate(root, path);
    const auto* node = table ? table->get(key) : nullptr;
    return node ? std::optional(shown(*node)) : std::nullopt;
}

Result<void> Document::set(const Path& path, std::string_view key, std::string_view value) {
    const auto root = toml::parse(text_, name_);
    const auto* table = navigate(root, path);
    if (!table) return failure(Reaction::internal, fmt::format("there is no {}", joined(path, "")));
    auto expected = root;
    try {
        const auto line = toml::parse(fmt::format("value = {}", value));
        navigate(expected, path)->insert_or_assign(key, *line.get("value"));
    } catch (const toml::parse_error&) {
        return failure(Reaction::reject, fmt::format("{} is no value that TOML knows", value));
    }
    const Lines lines(text_);
    std::string text;
    if (const auto* node = table->get(key)) {
        const auto begin = lines.offset(node->source().begin), end = lines.offset(node->source().end);
        text = text_.substr(0, begin) + std::string(value) + text_.substr(end);
    } else if (table->is_inline() && !path.empty()) {
        const auto brace = lines.offset(table->source().end) - 1;
        auto at = brace;
        while (at > 0 && text_[at - 1] == ' ') --at;
        text =
            text_.substr(0, at) + fmt::format("{}{} = {}", table->empty() ? "" : ", ", key, value) + text_.substr(at);
    } else {
        if (!path.empty() && !has_header(*table, lines))
            return stands_against("this element is written with dotted keys");
        const auto [line, indentation] = place_for(root, *table, path.empty(), key, lines);
        text = with_inserted(text_, lines.start(line), fmt::format("{}{} = {}", indentation, key, value));
    }
    auto good = checked(std::move(text), expected, name_);
    if (!good) return std::unexpected(good.error());
    text_ = std::move(*good);
    return {};
}

Result<void> Document::unset(const Path& path, std::string_view key) {
    const auto root = toml::parse(text_, name_);
    const auto* table = navigate(root, path);
    const auto* node = table ? table->get(key) : nullptr;
    if (!node) return {};
    const Lines lines(text_);
    if (table->is_inline() && !path.empty()) return stands_against("this element is written inline, { … }");
    std::size_t first = 0;
    for (const auto& [name, inner] : *table)
        if (name.str() == key) first = name.source().begin.line;
    const auto last = static_cast<std::size_t>(node->source().end.line);
    auto expected = root;
    navigate(expected, path)->erase(key);
    const auto rest = std::string_view(text_).substr(lines.offset(node->source().end),
                                                     lines.start(last + 1) - lines.offset(node->source().end));
    std::string text = text_.substr(0, lines.start(first));
    if (rest.find('#') != std::string_view::npos)
        for (auto line = first; line <= last; ++line)
            text += "# " + text_.substr(lines.start(line), lines.start(line + 1) - lines.start(line));
    text += text_.substr(lines.start(last + 1));
    auto good = checked(std::move(text), expected, name_);
    if (!good) return std::unexpected(good.error());
    text_ = std::move(*good);
    return {};
}

Result<Step> Document::add(const Path& parent, const std::string& key, bool is_list) {
    const auto root = toml::parse(text_, name_);
    const auto* table = navigate(root, parent);
    if (!table) return failure(Reaction::internal, fmt::format("there is no {}", joined(parent, "")));
    const auto* before = table->get(key);
    if (before && !is_list) return failure(Reaction::internal, fmt::format("there is a {} already", key));
    const Lines lines(text_);
    auto expected = root;
    Step step{key};
    if (is_list) {
        auto* within = navigate(expected, parent);
        if (!before) within->insert(key, toml::array{});
        within->get_as<toml::array>(key)->push_back(toml::table{});
        step.index = within->get_as<toml::array>(key)->size() - 1;
    } else {
        navigate(expected, parent)->insert(key, toml::table{});
    }
    const auto header = is_list ? fmt::format("[[{}]]", joined(parent, key)) : fmt::format("[{}]", joined(parent, key));
    std::vector<std::string> ways;
    if (!before && parent.empty()) {  // a section that stands there as a comment, with its defaults, becomes a real one
        for (std::size_t line = 1; line <= lines.count(); ++line)
            if (is_commented_header(lines.at(line)) && lines.at(line).starts_with("# [") &&
                bare_comment(lines.at(line)).starts_with(header))
                ways.push_back(text_.substr(0, lines.start(line)) + std::string(bare_comment(lines.at(line))) +
                               text_.substr(lines.start(line) + lines.at(line).size()));
    }
    if (before || !parent.empty()) {  // behind its sisters, or at the end of its parent
        auto last = last_line(before ? *before : static_cast<const toml::node&>(*table));
        while (last + 1 <= lines.count() && !is_blank(lines.at(last + 1)) && is_comment(lines.at(last + 1)) &&
               !is_commented_header(lines.at(last + 1)))
            ++last;
        ways.push_back(with_inserted(text_, lines.start(last + 1), "\n" + header));
    }
    ways.push_back(with_inserted(text_, text_.size(), text_.empty() ? header : "\n" + header));
    for (auto& way : ways)
        if (auto good = checked(std::move(way), expected, name_)) {
            text_ = std::move(*good);
            return step;
        }
    return stands_against(fmt::format("the {} of this file are written inline", key));
}

Result<void> Document::remove(const Path& path) {
    const auto root = toml::parse(text_, name_);
    const auto* table = navigate(root, path);
    if (!table || path.empty()) return failure(Reaction::internal, "there is no such element");
    const Lines lines(text_);
    if (!has_header(*table, lines)) return stands_against("this element is written inline, { … }");
    auto expected = root;
    auto above = path;
    const auto step = above.back();
    above.pop_back();
    auto* within = navigate(expected, above);
    if (step.index) {
        auto* list = within->get_as<toml::array>(step.key);
        list->erase(list->begin() + static_cast<std::ptrdiff_t>(*step.index));
        if (list->empty()) within->erase(step.key);
    } else {
        within->erase(step.key);
    }
    const auto first = static_cast<std::size_t>(table->source().begin.line);
    auto last = last_line(*table);
    while (last + 1 <= lines.count() && is_comment(lines.at(last + 1)) && !is_commented_header(lines.at(last + 1)))
        ++last;
    if (last + 1 <= lines.count() && is_blank(lines.at(last + 1)) && (first == 1 || is_blank(lines.at(first - 1))))
        ++last;
    auto good = checked(text_.substr(0, lines.start(first)) + text_.substr(lines.start(last + 1)), expected, name_);
    if (!good) return std::unexpected(good.error());
    text_ = std::move(*good);
    return {};
}

}  // namespace gmgate::daemon::configure
