#include "base/algorithms.h"

#include <algorithm>
#include <utility>

namespace gmgate {
namespace {

constexpr std::array<std::pair<Alg, std::string_view>, 4> kAlgs{{
    {Alg::hmac_sha_1_96, "hmac-sha-1-96"},
    {Alg::hmac_md5_96, "hmac-md5-96"},
    {Alg::aes_gmac, "aes-gmac"},
    {Alg::null, "null"},
}};
constexpr std::array<std::pair<Ealg, std::string_view>, 4> kEalgs{{
    {Ealg::aes_cbc, "aes-cbc"},
    {Ealg::des_ede3_cbc, "des-ede3-cbc"},
    {Ealg::aes_gcm, "aes-gcm"},
    {Ealg::null, "null"},
}};

bool same_word(std::string_view a, std::string_view lower) {
    return std::ranges::equal(
        a, lower, [](char x, char y) { return (x >= 'A' && x <= 'Z' ? static_cast<char>(x + 32) : x) == y; });
}

template <class Table, class Value>
std::string_view word_of(const Table& table, Value value) {
    for (const auto& [v, word] : table)
        if (v == value) return word;
    return "?";
}

template <class Table>
auto value_of(const Table& table, std::string_view word) -> std::optional<typename Table::value_type::first_type> {
    for (const auto& [value, name] : table)
        if (same_word(word, name)) return value;
    return std::nullopt;
}

}  // namespace

std::string_view to_string(Alg alg) { return word_of(kAlgs, alg); }
std::string_view to_string(Ealg ealg) { return word_of(kEalgs, ealg); }
std::optional<Alg> parse_alg(std::string_view word) { return value_of(kAlgs, word); }
std::optional<Ealg> parse_ealg(std::string_view word) { return value_of(kEalgs, word); }

bool is_valid(AlgorithmPair pair) {
    if (pair.ealg == Ealg::aes_gcm) return pair.alg == Alg::null;
    if (pair.alg == Alg::null) return false;
    if (pair.alg == Alg::aes_gmac) return pair.ealg == Ealg::null;
    return true;
}

bool is_confidential(AlgorithmPair pair) { return pair.ealg != Ealg::null; }
bool is_deprecated(AlgorithmPair pair) { return pair.alg == Alg::hmac_md5_96 || pair.ealg == Ealg::des_ede3_cbc; }

}  // namespace gmgate
