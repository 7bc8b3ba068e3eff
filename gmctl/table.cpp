#include "gmctl/table.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include <fmt/format.h>

namespace gmgate::gmctl {
namespace {

constexpr std::size_t kLeast = 6;  // a shrinking column keeps so many columns

bool is_colour_used = false;

std::string cut(const std::string& text, std::size_t width, bool keeps_end) {
    if (text.size() <= width) return text;
    return keeps_end ? "…" + text.substr(text.size() - (width - 1)) : text.substr(0, width - 1) + "…";
}

// "…" takes three octets and one column.
std::string padded(const std::string& text, std::size_t width, bool right) {
    const auto shown = text.ends_with("…") || text.starts_with("…") ? text.size() - 2 : text.size();
    const std::string blanks(width > shown ? width - shown : 0, ' ');
    return right ? blanks + text : text + blanks;
}

// States as tables name them; other words stay as they are.
std::string painted_state(const std::string& padded_text) {
    const auto word = padded_text.substr(0, padded_text.find_last_not_of(' ') + 1);
    for (const char* good : {"up", "stands"})
        if (word == good) return painted(padded_text, Colour::good);
    for (const char* bad : {"down", "MISSING"})
        if (word == bad) return painted(padded_text, Colour::bad);
    for (const char* doubtful : {"busy", "disabled", "unknown", "ending"})
        if (word == doubtful) return painted(padded_text, Colour::doubtful);
    return padded_text;
}

}  // namespace

void use_colour(bool is_used) { is_colour_used = is_used; }

bool terminal_has_colour() {
    const char* none = std::getenv("NO_COLOR");
    const char* terminal = std::getenv("TERM");
    const bool is_refused = none != nullptr && *none != '\0';
    return isatty(STDOUT_FILENO) != 0 && !is_refused && terminal != nullptr && std::string_view(terminal) != "dumb";
}

std::string painted(const std::string& text, Colour colour) {
    if (!is_colour_used) return text;
    const char* code = "";
    switch (colour) {
        case Colour::good:
            code = "32";
            break;
        case Colour::doubtful:
            code = "33";
            break;
        case Colour::bad:
            code = "31";
            break;
    }
    return fmt::format("\x1b[{}m{}\x1b[0m", code, text);
}

std::size_t terminal_height() {
    winsize size{};
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0) return size.ws_row;
    return 0;
}

std::size_t terminal_width() {
    winsize size{};
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
    if (const char* columns = std::getenv("COLUMNS")) return static_cast<std::size_t>(std::max(0, std::atoi(columns)));
    return 0;
}

std::string printable(std::string_view text) {
    std::string out;
    for (const char c : text) {
        const auto octet = static_cast<unsigned char>(c);
        if (octet >= 0x20 && octet < 0x7f) out += c;
        else out += fmt::format("\\x{:02x}", octet);
    }
    return out;
}

void TextTable::add(std::vector<std::string> cells) {
    cells.resize(columns_.size());
    for (auto& cell : cells) cell = printable(cell);
    rows_.push_back(std::move(cells));
}

std::string TextTable::text(std::size_t width) const {
    std::vector<std::size_t> widths;
    std::size_t total = columns_.empty() ? 0 : 2 * (columns_.size() - 1);
    for (std::size_t i = 0; i < columns_.size(); ++i) {
        std::size_t widest = columns_[i].title.size();
        for (const auto& row : rows_) widest = std::max(widest, row[i].size());
        widths.push_back(widest);
        total += widest;
    }
    while (width != 0 && total > width) {  // the widest of those that may give way
        std::size_t victim = columns_.size();
        for (std::size_t i = 0; i < columns_.size(); ++i)
            if (columns_[i].shrinks && widths[i] > kLeast && (victim == columns_.size() || widths[i] > widths[victim]))
                victim = i;
        if (victim == columns_.size()) break;
        --widths[victim];
        --total;
    }
    std::string out;
    const auto line = [&](const auto& cell_of) {
        std::string one;
        for (std::size_t i = 0; i < columns_.size(); ++i) {
            auto cell = padded(cut(cell_of(i), widths[i], columns_[i].keeps_end), widths[i], columns_[i].right);
            one += (i == 0 ? "" : "  ") + (columns_[i].is_state ? painted_state(cell) : cell);
        }
        one.erase(one.find_last_not_of(' ') + 1);
        out += one + '\n';
    };
    line([&](std::size_t i) { return columns_[i].title; });
    for (const auto& row : rows_) line([&](std::size_t i) { return row[i]; });
    return out;
}

std::string wrapped(std::string_view text, std::size_t width, std::string_view indent) {
    if (width == 0) width = 100;
    std::string out, line(indent);
    bool fresh = true;
    while (!text.empty()) {
        const auto end = std::min(text.find(' '), text.size());
        const auto word = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        if (!fresh && line.size() + 1 + word.size() > width) {
            out += line + '\n';
            line = indent;
            fresh = true;
        }
        if (!fresh) line += ' ';
        line += word;
        fresh = false;
    }
    return fresh ? out : out + line + '\n';
}

std::string duration_text(long long seconds) {
    const char* sign = seconds < 0 ? "-" : "";
    if (seconds < 0) seconds = -seconds;
    if (seconds >= 86400) return fmt::format("{}{} d {} h", sign, seconds / 86400, seconds % 86400 / 3600);
    if (seconds >= 3600) return fmt::format("{}{} h {} min", sign, seconds / 3600, seconds % 3600 / 60);
    if (seconds >= 60) return fmt::format("{}{} min {} s", sign, seconds / 60, seconds % 60);
    return fmt::format("{}{} s", sign, seconds);
}

}  // namespace gmgate::gmctl
