// A strict walk over a TOML document: every key is asked for by name, what nobody asked for is an error, and each error
// says where it stands and how to mend it. Internal to config.cpp.
#pragma once

#include <toml++/toml.h>

#include <functional>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "base/near_word.h"

namespace gmgate::daemon {

/// Collects every mistake of a file, so that one run tells all of them.
class Mistakes {
public:
    explicit Mistakes(std::string name) : name_(std::move(name)) {}
    void add(const toml::source_region& where, std::string_view text) {
        lines_.push_back(fmt::format("{}:{}:{}: {}", name_, where.begin.line, where.begin.column, text));
    }
    /// What is allowed and hardly meant.
    void warn(const toml::source_region& where, std::string_view text) {
        warnings_.push_back(fmt::format("{}:{}:{}: {}", name_, where.begin.line, where.begin.column, text));
    }
    std::vector<std::string> take_warnings() { return std::move(warnings_); }
    bool none() const { return lines_.empty(); }
    std::string text() const {
        std::string all;
        for (const auto& line : lines_) all += (all.empty() ? "" : "\n") + line;
        return all;
    }

private:
    std::string name_;
    std::vector<std::string> lines_, warnings_;
};

/// One table of the document. finish() complains of keys that nobody read.
class Section {
public:
    Section(const toml::table& table, std::string title, Mistakes& mistakes)
        : table_(table), title_(std::move(title)), mistakes_(mistakes) {}

    const toml::source_region& where() const { return table_.source(); }
    const toml::source_region& where(std::string_view key) const {
        const auto* node = table_.get(key);
        return node ? node->source() : table_.source();
    }
    void mistake(std::string_view key, std::string_view text) {
        mistakes_.add(where(key), fmt::format("{}: {}: {}", title_, key, text));
    }
    void warn(std::string_view key, std::string_view text) {
        mistakes_.warn(where(key), fmt::format("{}: {}: {}", title_, key, text));
    }
    /// Asking for a key makes it a known one.
    bool has(std::string_view key) { return take(key) != nullptr; }

    void text(std::string_view key, std::string& out) {
        if (const auto* node = take(key)) {
            if (const auto* value = node->as_string()) out = value->get();
            else mistake(key, "must be a text in quotes");
        }
    }
    void boolean(std::string_view key, bool& out) {
        const auto* node = take(key);
        if (!node) return;
        if (const auto* value = node->as_boolean()) {
            out = value->get();
            return;
        }
        const auto word = node->value<std::string>().value_or("");
        if (word == "enabled") out = true;
        else if (word == "disabled") out = false;
        else mistake(key, "must be true, false, \"enabled\" or \"disabled\"");
    }
    template <class Number>
    void number(std::string_view key, Number& out, std::int64_t least, std::int64_t most) {
        const auto* node = take(key);
        if (!node) return;
        const auto* value = node->as_integer();
        if (!value || value->get() < least || value->get() > most)
            mistake(key, fmt::format("must be a whole number from {} to {}", least, most));
        else out = static_cast<Number>(value->get());
    }
    void port(std::string_view key, Port& out) {
        std::uint16_t value = out.value;
        number(key, value, 1, 65535);
        out = Port{value};
    }
    /// A number, or a list of numbers.
    void ports(std::string_view key, std::vector<Port>& out) {
        const auto* node = take(key);
        if (!node) return;
        out.clear();
        const auto add = [&](const toml::node& element) {
            const auto value = element.value<std::int64_t>();
            if (!element.is_integer() || !value || *value < 1 || *value > 65535)
                mistake(key, "must be ports from 1 to 65535");
            else out.emplace_back(static_cast<std::uint16_t>(*value));
        };
        if (const auto* list = node->as_array())
            for (const auto& element : *list) add(element);
        else add(*node);
    }
    /// A text, or a list of texts.
    void texts(std::string_view key, std::vector<std::string>& out) {
        const auto* node = take(key);
        if (!node) return;
        out.clear();
        const auto add = [&](const toml::node& element) {
            if (const auto* value = element.as_string()) out.push_back(value->get());
            else mistake(key, "must be a list of texts in quotes");
        };
        if (const auto* list = node->as_array())
            for (const auto& element : *list) add(element);
        else add(*node);
    }
    /// One word out of a fixed set.
    template <class Enum>
    void word(std::string_view key, Enum& out, std::initializer_list<std::pair<std::string_view, Enum>> words) {
        if (!has(key)) return;
        std::string given;
        text(key, given);
        std::string known;
        std::vector<std::string> names;
        for (const auto& [name, value] : words) {
            if (given == name) {
                out = value;
                return;
            }
            known += fmt::format("{}\"{}\"", known.empty() ? "" : ", ", name);
            names.emplace_back(name);
        }
        mistake(key, fmt::format("\"{}\" is not one of {}{}", given, known, did_you_mean(given, names)));
    }
    void table(std::string_view key, const std::function<void(Section&)>& read) {
        const auto* node = take(key);
        if (!node) return;
        if (const auto* inner = node->as_table()) {
            Section section(*inner, fmt::format("[{}]", key), mistakes_);
            read(section);
            section.finish();
        } else {
            mistake(key, fmt::format("must be a table, written [{}]", key));
        }
    }
    void tables(std::string_view key, std::string_view shown, const std::function<void(Section&)>& read) {
        const auto* node = take(key);
        if (!node) return;
        const auto* list = node->as_array();
        if (!list || !list->is_homogeneous<toml::table>()) {
            mistake(key, fmt::format("must be written [[{}]]", shown));
            return;
        }
        for (const auto& element : *list) {
            Section section(*element.as_table(), fmt::format("[[{}]]", shown), mistakes_);
            read(section);
            section.finish();
        }
    }
    void finish() {
        for (const auto& [key, node] : table_)
            if (!read_.contains(std::string(key.str())))
                mistakes_.add(key.source(), fmt::format("{}: unknown key \"{}\"{} known here: {}", title_, key.str(),
                                                        meant(key.str()), known()));
    }

private:
    const toml::node* take(std::string_view key) {
        read_.insert(std::string(key));
        return table_.get(key);
    }
    // gmctl configure asks for what is known with a key that is like none: then the message has its plain form.
    std::string meant(std::string_view key) const {
        const auto suggestion = did_you_mean(key, {read_.begin(), read_.end()});
        return suggestion.empty() ? ";" : suggestion;
    }
    std::string known() const {
        std::string all;
        for (const auto& key : read_) all += (all.empty() ? "" : ", ") + key;
        return all;
    }
    const toml::table& table_;
    std::string title_;
    Mistakes& mistakes_;
    std::set<std::string> read_;
};

/// Every leaf of a document by its path, with its value as text: "limits.registrations" → "100000",
/// "sip-interface[0].realm-id" → "'access'".
inline void flatten(const toml::node& node, const std::string& path, std::map<std::string, std::string>& out) {
    if (const auto* table = node.as_table()) {
        for (const auto& [key, inner] : *table)
            flatten(inner, path.empty() ? std::string(key.str()) : path + '.' + std::string(key.str()), out);
    } else if (const auto* list = node.as_array(); list && !list->empty() && list->is_homogeneous<toml::table>()) {
        for (std::size_t i = 0; i < list->size(); ++i) flatten((*list)[i], fmt::format("{}[{}]", path, i), out);
    } else {
        std::ostringstream text;
        node.visit([&](const auto& value) { text << value; });
        out[path] = text.str();
    }
}

}  // namespace gmgate::daemon
