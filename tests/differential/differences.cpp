#include "tests/differential/differences.h"

#include <algorithm>
#include <regex>

#include "tests/differential/lists.h"

namespace gmgate::differential {
namespace {

using List = const std::vector<Entry>&;

/// True when a value of one of the named parameters in an entry of that mechanism ("" is any) fails the test.
template <class Test>
bool has_bad_value(List list, std::string_view mechanism, std::initializer_list<std::string_view> names, Test is_good) {
    for (const Entry& entry : list) {
        if (!mechanism.empty() && !equal_names(entry.name, mechanism)) continue;
        for (const std::string_view name : names)
            for (const std::string& value : entry.values(name))
                if (!is_good(value)) return true;
    }
    return false;
}

bool is_within(const std::string& digits, std::size_t most_digits, unsigned long long first, unsigned long long last) {
    static const std::regex kDigits("[0-9]+");
    if (digits.size() > most_digits || !std::regex_match(digits, kDigits)) return false;
    const std::string significant = digits.substr(std::min(digits.find_first_not_of('0'), digits.size()));
    if (significant.size() > 10) return false;
    const auto value = significant.empty() ? 0ULL : std::stoull(significant);
    return value >= first && value <= last;
}

bool has_empty_entry(const std::string& list, List) {
    return std::ranges::any_of(comma_pieces(list), [](const std::string& piece) { return piece.empty(); });
}

bool has_doubled_parameter(const std::string&, List list) {
    return std::ranges::any_of(list, [](const Entry& entry) {
        return std::ranges::any_of(entry.parameters,
                                   [&](const Parameter& p) { return entry.values(p.name).size() > 1; });
    });
}

bool has_bad_q(const std::string&, List list) {
    static const std::regex kQvalue("0(\\.[0-9]{0,3})?|1(\\.0{0,3})?");
    return has_bad_value(list, "", {"q"}, [](const std::string& value) { return std::regex_match(value, kQvalue); });
}

bool has_bad_spi(const std::string&, List list) {
    return has_bad_value(list, "ipsec-3gpp", {"spi-c", "spi-s"},
                         [](const std::string& v) { return is_within(v, 10, 1, 4294967295ULL); });
}

bool has_bad_port(const std::string&, List list) {
    return has_bad_value(list, "ipsec-3gpp", {"port-c", "port-s"},
                         [](const std::string& v) { return is_within(v, v.size(), 1, 65535); });
}

bool has_bad_digest_parameter(const std::string&, List list) {
    static const std::regex kVerify("\"[0-9a-f]{32}\""), kToken("[-.!%*_+`'~0-9A-Za-z]+");
    return has_bad_value(list, "", {"d-ver"}, [](const std::string& v) { return std::regex_match(v, kVerify); }) ||
           has_bad_value(list, "", {"d-alg"}, [](const std::string& v) { return std::regex_match(v, kToken); });
}

bool has_slash(const std::string&, List list) {
    return std::ranges::any_of(list, [](const Entry& entry) {
        return std::ranges::any_of(entry.parameters, [](const Parameter& p) {
            return !p.value.starts_with('"') && p.value.find('/') != std::string::npos;
        });
    });
}

bool is_beyond_limits(const std::string& text, List list) {
    return text.size() > 8192 || list.size() > 32 ||
           std::ranges::any_of(list, [](const Entry& entry) { return entry.parameters.size() > 32; });
}

constexpr Difference kDifferences[]{
    {"empty entry",
     "RFC 3329 §2.2: sec-mechanism *(COMMA sec-mechanism) has no empty element; sofia-sip skips it as HTTP's #rule does",
     has_empty_entry},
    {"parameter twice", "A-5: a parameter occurs once in a mechanism; sofia-sip keeps both and takes the last q",
     has_doubled_parameter},
    {"bad q", "RFC 3329 §2.2: qvalue; sofia-sip keeps any text and gives it a meaning nowhere", has_bad_q},
    {"bad SPI", "TS 33.203 Annex H, RFC 4303 §2.1: 1 to 10 digits, 1 to 4294967295; sofia-sip does not know ipsec-3gpp",
     has_bad_spi},
    {"bad port", "TS 33.203 Annex H: 1 to 65535; sofia-sip does not know ipsec-3gpp", has_bad_port},
    {"bad d-ver or d-alg",
     "RFC 3329 §2.2: 32 lower-case hexadecimal digits in quotes, a token; sofia-sip keeps any text",
     has_bad_digest_parameter},
    {"slash in a value",
     "RFC 3261 §25.1: gen-value = token / host / quoted-string, none of which holds '/'; sofia-sip lets it pass",
     has_slash},
    {"limit", "sip/message/limits.h: 32 entries, 32 parameters of one, 8192 octets; sofia-sip has no limits",
     is_beyond_limits},
};

}  // namespace

std::span<const Difference> differences() { return kDifferences; }

}  // namespace gmgate::differential
