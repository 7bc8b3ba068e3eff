#include "algorithms.h"

#include "text.h"

#include <algorithm>
#include <array>
#include <utility>

namespace gmgate::peers {
namespace {

constexpr std::array<std::pair<Alg, std::string_view>, 4> kAlgs{{{Alg::hmac_md5_96, "hmac-md5-96"},
                                                                 {Alg::hmac_sha_1_96, "hmac-sha-1-96"},
                                                                 {Alg::aes_gmac, "aes-gmac"},
                                                                 {Alg::null, "null"}}};
constexpr std::array<std::pair<Ealg, std::string_view>, 4> kEalgs{{{Ealg::null, "null"},
                                                                   {Ealg::des_ede3_cbc, "des-ede3-cbc"},
                                                                   {Ealg::aes_cbc, "aes-cbc"},
                                                                   {Ealg::aes_gcm, "aes-gcm"}}};

template <class Table, class Value>
std::string_view name_in(const Table& table, Value value) {
    return std::ranges::find(table, value, [](const auto& row) { return row.first; })->second;
}

template <class Value, class Table>
std::optional<Value> value_in(const Table& table, std::string_view text) {
    const auto row = std::ranges::find_if(table, [&](const auto& r) { return iequals(r.second, text); });
    if (row == table.end()) return std::nullopt;
    return row->first;
}

}  // namespace

std::string_view name(Alg alg) { return name_in(kAlgs, alg); }
std::string_view name(Ealg ealg) { return name_in(kEalgs, ealg); }
std::optional<Alg> alg_from(std::string_view text) { return value_in<Alg>(kAlgs, text); }
std::optional<Ealg> ealg_from(std::string_view text) { return value_in<Ealg>(kEalgs, text); }

bool is_valid(AlgPair pair) {
    switch (pair.alg) {
        case Alg::null:
            return pair.ealg == Ealg::aes_gcm;
        case Alg::aes_gmac:
            return pair.ealg == Ealg::null;
        case Alg::hmac_md5_96:
        case Alg::hmac_sha_1_96:
            return pair.ealg != Ealg::aes_gcm;
    }
    return false;
}

std::vector<AlgPair> all_pairs() {
    return {{Alg::null, Ealg::aes_gcm},
            {Alg::hmac_sha_1_96, Ealg::aes_cbc},
            {Alg::aes_gmac, Ealg::null},
            {Alg::hmac_sha_1_96, Ealg::des_ede3_cbc},
            {Alg::hmac_sha_1_96, Ealg::null},
            {Alg::hmac_md5_96, Ealg::aes_cbc},
            {Alg::hmac_md5_96, Ealg::des_ede3_cbc},
            {Alg::hmac_md5_96, Ealg::null}};
}

Result<std::vector<AlgPair>> parse_offer(std::string_view text, bool allow_invalid) {
    if (iequals(trim(text), "all")) return all_pairs();
    std::vector<AlgPair> out;
    for (const std::string& entry : split_list(text, ',')) {
        const auto slash = entry.find('/');
        if (slash == std::string::npos) return fail("'{}' is not alg/ealg", entry);
        const auto alg = alg_from(trim(std::string_view(entry).substr(0, slash)));
        const auto ealg = ealg_from(trim(std::string_view(entry).substr(slash + 1)));
        if (!alg || !ealg)
            return fail(
                "'{}': alg is one of hmac-sha-1-96, hmac-md5-96, aes-gmac, null and ealg one of aes-gcm, aes-cbc, des-ede3-cbc, null",
                entry);
        const AlgPair pair{*alg, *ealg};
        if (!is_valid(pair) && !allow_invalid)
            return fail("'{}' is not a valid combination (null only with aes-gcm, aes-gmac only with null)", entry);
        out.push_back(pair);
    }
    if (out.empty()) return fail("the offer is empty");
    return out;
}

std::string to_string(AlgPair pair) { return fmt::format("{}/{}", name(pair.alg), name(pair.ealg)); }

}  // namespace gmgate::peers
