#include "base/near_word.h"

#include <algorithm>
#include <cctype>

namespace gmgate {
namespace {

constexpr std::size_t kLongest = 64;  // what is longer is no mistyped word

char low(char c) { return static_cast<char>(std::tolower(static_cast<unsigned char>(c))); }

// Damerau and Levenshtein, with swaps of neighbours: three rows of the table are enough.
std::size_t distance(std::string_view a, std::string_view b) {
    std::vector<std::size_t> before(b.size() + 1), row(b.size() + 1), next(b.size() + 1);
    for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
    for (std::size_t i = 1; i <= a.size(); ++i) {
        next[0] = i;
        for (std::size_t j = 1; j <= b.size(); ++j) {
            const bool is_same = low(a[i - 1]) == low(b[j - 1]);
            next[j] = std::min({row[j] + 1, next[j - 1] + 1, row[j - 1] + (is_same ? 0 : 1)});
            if (i > 1 && j > 1 && low(a[i - 1]) == low(b[j - 2]) && low(a[i - 2]) == low(b[j - 1]))
                next[j] = std::min(next[j], before[j - 2] + 1);
        }
        std::swap(before, row);
        std::swap(row, next);
    }
    return row[b.size()];
}

}  // namespace

std::string near_word(std::string_view given, const std::vector<std::string>& known) {
    if (given.empty() || given.size() > kLongest) return {};
    std::string best;
    std::size_t least = std::max<std::size_t>(given.size() / 3, 1) + 1;
    for (const auto& word : known) {
        if (word == given) return {};
        if (word.size() > kLongest) continue;
        if (const auto steps = distance(given, word); steps < least) {
            least = steps;
            best = word;
        }
    }
    return best;
}

std::string did_you_mean(std::string_view given, const std::vector<std::string>& known) {
    const auto word = near_word(given, known);
    return word.empty() ? "" : "; did you mean \"" + word + "\"?";
}

}  // namespace gmgate
