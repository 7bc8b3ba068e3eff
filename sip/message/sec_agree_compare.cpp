// Semantic comparison of security lists: the mirror check of RFC 3329 §2.3.1 and TS 33.203 Annex H (A-16, B-63, G-26).
#include <array>

#include "sip/message/sec_agree.h"

namespace gmgate::sip {
namespace {

/// A parameter as it takes part in a comparison: present in the list, or filled in as Annex H's default.
struct Side {
    bool is_present = false;
    bool has_value = false;
    std::string_view value;
};

Side side_of(const Mechanism& mechanism, std::string_view name) {
    for (const MechanismParameter& p : mechanism.parameters)
        if (same_token(p.name, name)) return {.is_present = true, .has_value = p.has_value, .value = p.value};
    constexpr std::array<std::array<std::string_view, 2>, 3> kDefaults{
        {{"prot", "esp"}, {"mod", "trans"}, {"ealg", "null"}}};
    if (mechanism.is("ipsec-3gpp"))
        for (const auto& [parameter, value] : kDefaults)
            if (same_token(parameter, name)) return {.is_present = true, .has_value = true, .value = value};
    return {};
}

bool is_number(const Mechanism& mechanism, std::string_view name) {
    return mechanism.is("ipsec-3gpp") && (same_token(name, "spi-c") || same_token(name, "spi-s") ||
                                          same_token(name, "port-c") || same_token(name, "port-s"));
}

std::string_view without_leading_zeros(std::string_view digits) {
    while (digits.size() > 1 && digits.front() == '0') digits.remove_prefix(1);
    return digits;
}

/// RFC 3261 §7.3.1: tokens without regard to case, quoted strings octet by octet; one is never equal to the other.
bool same_value(std::string_view a, std::string_view b) {
    const bool quoted = a.starts_with('"');
    if (quoted != b.starts_with('"')) return false;
    return quoted ? a == b : same_token(a, b);
}

std::string shown(const Side& side) {
    if (!side.is_present) return "absent";
    if (!side.has_value) return "without a value";
    return std::string(side.value.substr(0, 64));
}

/// Compares the parameter `name` of both; nullopt when equal.
std::optional<std::string> parameter_difference(const Mechanism& expected, const Mechanism& received,
                                                std::string_view name) {
    const Side left = side_of(expected, name);
    const Side right = side_of(received, name);
    bool equal = left.is_present == right.is_present && left.has_value == right.has_value;
    if (equal && left.has_value) {
        if (is_number(expected, name)) equal = without_leading_zeros(left.value) == without_leading_zeros(right.value);
        else if (same_token(name, "q") && expected.q && received.q) equal = expected.q == received.q;
        else equal = same_value(left.value, right.value);
    }
    if (equal) return std::nullopt;
    return std::string(name.substr(0, 64)) + " is " + shown(right) + ", expected " + shown(left);
}

std::optional<std::string> mechanism_difference(const Mechanism& expected, const Mechanism& received,
                                                CompareOptions options) {
    if (!same_token(expected.name, received.name))
        return "mechanism is " + received.name.substr(0, 64) + ", expected " + expected.name.substr(0, 64);
    for (const Mechanism* side : {&expected, &received})
        for (const MechanismParameter& p : side->parameters) {
            if (options.ignore_q && same_token(p.name, "q")) continue;
            if (auto text = parameter_difference(expected, received, p.name)) return text;
        }
    return std::nullopt;
}

}  // namespace

std::optional<std::string> difference(const SecurityList& expected, const SecurityList& received,
                                      CompareOptions options) {
    const auto& left = expected.mechanisms();
    const auto& right = received.mechanisms();
    if (right.empty() && !left.empty()) return "the list is absent";
    for (std::size_t i = 0; i < left.size() && i < right.size(); ++i)
        if (auto text = mechanism_difference(left[i], right[i], options))
            return "entry " + std::to_string(i + 1) + ": " + *text;
    if (left.size() == right.size()) return std::nullopt;
    return "the list has " + std::to_string(right.size()) + " entries, expected " + std::to_string(left.size());
}

}  // namespace gmgate::sip
