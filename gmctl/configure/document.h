// A TOML text that is edited in place: every change touches the bytes that it is about and nothing else, so comments,
// order, blank lines and the way numbers are written stay as their author left them.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace gmgate::daemon::configure {

/// One step from a table to one below it: `[key]`, or with an index (from 0) the one of several `[[key]]`.
struct Step {
    std::string key;
    std::optional<std::size_t> index{};
    friend bool operator==(const Step&, const Step&) = default;
};
/// From the top of the file to a table; empty: the top level itself.
using Path = std::vector<Step>;

class Document {
public:
    /// Takes a text that is valid TOML. Error (reject): "NAME:LINE:COLUMN: why".
    static Result<Document> parse(std::string text, const std::string& name);

    const std::string& text() const { return text_; }

    bool has(const Path& path) const;
    /// How many tables `[[key]]` there are in the table at `parent`.
    std::size_t count(const Path& parent, std::string_view key) const;
    /// A value for people: texts without quotes, lists separated by blanks. Nothing when the key is not set.
    std::optional<std::string> value(const Path& path, std::string_view key) const;

    // Each edit is applied whole or not at all: the new text is parsed and must hold exactly the intended change, else
    // an Error (reject) says what in the way the file is written stands against it, and the text stays as it was.

    /// Sets a key to `value`, which is written in TOML ("\"tls\"", "5061", "[1, 2]"). An existing value is replaced
    /// where it stands; a new key goes below its commented default, `# key = …`, or else behind the last key of the
    /// table.
    Result<void> set(const Path& path, std::string_view key, std::string_view value);
    /// Takes a key out: the line goes, or becomes a comment when a comment stands behind the value.
    Result<void> unset(const Path& path, std::string_view key);
    /// Makes an empty `[key]` or, as the last of its kind, `[[key]]` in the table at `parent`, and gives the step to
    /// it.
    Result<Step> add(const Path& parent, const std::string& key, bool is_list);
    /// Takes out the table at `path`, with everything below it.
    Result<void> remove(const Path& path);

private:
    Document(std::string text, std::string name) : text_(std::move(text)), name_(std::move(name)) {}
    std::string text_;
    std::string name_;
};

/// A text in TOML's quotes, escaped.
std::string quoted(std::string_view text);

}  // namespace gmgate::daemon::configure
