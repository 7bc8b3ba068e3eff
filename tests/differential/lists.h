// The lists that both parsers are asked about: values of phones and specifications, generated ones and mutated ones.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace gmgate::differential {

/// Values of phones and networks (tests/unit/data/handset_headers.txt), of RFC 3329 and TS 33.203, and by hand one or
/// two for each rule of the grammar and each class of difference.
std::vector<std::string> known_lists();

/// Makes lists from words of the grammar, mostly well-formed, or damages given ones. The same seed gives the same
/// lists.
class ListMaker {
public:
    explicit ListMaker(std::uint64_t seed) : random_(seed) {}
    std::string generate();
    std::string mutate(std::string_view list);

private:
    std::size_t below(std::size_t limit) { return static_cast<std::size_t>(random_() % limit); }
    bool one_in(std::size_t n) { return below(n) == 0; }
    std::string_view pick(const std::vector<std::string_view>& words) { return words[below(words.size())]; }
    std::string blanks();
    std::string letters_mixed(std::string_view word);
    std::string parameter();

    std::mt19937_64 random_;
};

/// What the message parser can hand over as a field value: no NUL, no CR or LF but in folds, no white space at the
/// ends.
std::string as_field_value(std::string_view text);

/// The pieces between the commas that stand outside of quoted strings, trimmed.
std::vector<std::string> comma_pieces(std::string_view list);

}  // namespace gmgate::differential
