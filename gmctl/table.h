// Tables that fit the terminal.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace gmgate::gmctl {

/// Columns of the terminal; 0 when standard output is none: nothing is cut then.
std::size_t terminal_width();
/// Lines of the terminal; 0 when standard output is none.
std::size_t terminal_height();
/// Colour from now on: for a terminal that has it, unless NO_COLOR is set (no-color.org). Off at first.
void use_colour(bool is_used);
bool terminal_has_colour();
enum class Colour { good, doubtful, bad };
/// The text as it is, or with what makes a terminal paint it.
std::string painted(const std::string& text, Colour colour);
/// Text from the network as it may be shown: control characters and what is no printable ASCII as \xHH, so that no
/// escape sequence reaches the terminal.
std::string printable(std::string_view text);

struct Column {
    std::string title;
    bool right = false;      ///< numbers
    bool shrinks = false;    ///< may be cut, with "…" at its end, when the table is too wide
    bool keeps_end = false;  ///< what shrinks loses its beginning instead: the port of an address stays
    bool is_state = false;   ///< words such as up and down, which may have a colour
};

class TextTable {
public:
    explicit TextTable(std::vector<Column> columns) : columns_(std::move(columns)) {}
    /// Cells are made printable; missing ones are empty.
    void add(std::vector<std::string> cells);
    std::size_t size() const { return rows_.size(); }
    /// Lines with their ends, at most `width` columns wide (0: as wide as needed) as far as shrinking columns allow it.
    std::string text(std::size_t width) const;

private:
    std::vector<Column> columns_;
    std::vector<std::vector<std::string>> rows_;
};

/// Breaks a paragraph into lines of at most `width` columns (0: 100).
std::string wrapped(std::string_view text, std::size_t width, std::string_view indent = {});
/// "3 d 4 h", "5 min 7 s", "12 s"
std::string duration_text(long long seconds);

}  // namespace gmgate::gmctl
