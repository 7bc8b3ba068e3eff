#include "daemon/rules/identity.h"

#include <regex.h>

#include <algorithm>
#include <optional>
#include <string>

#include <fmt/format.h>

#include "daemon/rules/header_rules.h"
#include "sip/message/headers.h"

namespace gmgate::daemon {

using sip::HeaderId;

namespace {

std::string digits_of(std::string_view number) {
    std::string digits;
    for (const char c : number)
        if (std::string_view("-.()").find(c) == std::string_view::npos) digits += c;
    return digits;
}

/// The two parts around `!regular expression!`; nullopt when there is none.
struct Wildcard {
    std::string_view before, expression, after;
    static std::optional<Wildcard> parse(std::string_view uri) {
        const auto first = uri.find('!'), last = uri.rfind('!');
        if (first == std::string_view::npos || first == last) return std::nullopt;
        return Wildcard{uri.substr(0, first), uri.substr(first + 1, last - first - 1), uri.substr(last + 1)};
    }
};

/// The whole text; nothing longer than an identity is tried, for an expression may take long.
bool matches(std::string_view expression, std::string_view text) {
    constexpr std::size_t kLongest = 255;
    if (expression.size() > kLongest || text.size() > kLongest) return false;
    regex_t compiled;
    const auto whole = fmt::format("^({})$", expression);
    if (regcomp(&compiled, whole.c_str(), REG_EXTENDED | REG_NOSUB) != 0) return false;
    const bool found = regexec(&compiled, std::string(text).c_str(), 0, nullptr, 0) == 0;
    regfree(&compiled);
    return found;
}

/// The registered identity that is meant: as it was registered, or, when a wildcard covers it, as it was written.
std::optional<std::string> find_identity(std::string_view name_addr, const std::vector<Impu>& registered) {
    const auto address = sip::NameAddr::parse(name_addr);
    if (!address) return std::nullopt;
    for (const Impu& impu : registered)  // as phones write it mostly
        if (impu.value == address->uri) return impu.value;
    for (const Impu& impu : registered)
        if (is_same_identity(impu.value, address->uri)) return impu.value;
    for (const Impu& impu : registered)
        if (covers_identity(impu.value, address->uri)) return std::string(address->uri);
    return std::nullopt;
}

void assert_one(sip::Edit& edit, const sip::Message& message, std::optional<std::string> asserted,
                const std::vector<Impu>& registered) {
    if (!asserted) asserted = asserted_identity(message, registered);
    edit.remove_all(HeaderId::p_preferred_identity);
    if (asserted) edit.append({"P-Asserted-Identity: <", *asserted, ">"});
}

}  // namespace

std::optional<std::string> asserted_identity(const sip::Message& message, const std::vector<Impu>& registered) {
    for (const std::string_view value : values_of(message, HeaderId::p_preferred_identity))
        if (auto preferred = find_identity(value, registered)) return preferred;
    for (const Impu& impu : registered)  // C-61: the default identity
        if (!Wildcard::parse(impu.value)) return impu.value;
    return std::nullopt;
}

bool is_same_identity(std::string_view a, std::string_view b) {
    const auto left = sip::Uri::parse(a);
    const auto right = sip::Uri::parse(b);
    if (!left || !right || !sip::same_token(left->scheme, right->scheme)) return false;
    if (sip::same_token(left->scheme, "tel")) return digits_of(left->user) == digits_of(right->user);
    return left->user == right->user && sip::same_token(left->host, right->host) && left->port == right->port;
}

bool covers_identity(std::string_view wildcarded, std::string_view uri) {
    const auto wildcard = Wildcard::parse(wildcarded);
    const auto parsed = sip::Uri::parse(uri);
    if (!wildcard || !parsed) return false;
    // Parameters play no part, nor does the case of scheme and host.
    std::string named = fmt::format("{}:{}", parsed->scheme, parsed->user);
    if (!parsed->host.empty()) named += fmt::format("@{}", parsed->host);
    const auto around = wildcard->before.size() + wildcard->after.size();
    if (named.size() < around) return false;
    const std::string_view all = named;
    const auto colon = wildcard->before.find(':');
    if (colon == std::string_view::npos || !sip::same_token(wildcard->before.substr(0, colon), parsed->scheme))
        return false;
    if (all.substr(colon, wildcard->before.size() - colon) != wildcard->before.substr(colon)) return false;
    if (!sip::same_token(all.substr(all.size() - wildcard->after.size()), wildcard->after)) return false;
    return matches(wildcard->expression, all.substr(wildcard->before.size(), all.size() - around));
}

void assert_identity(sip::Edit& edit, const sip::Message& message, const std::vector<Impu>& registered) {
    assert_one(edit, message, std::nullopt, registered);
}

void assert_called_identity(sip::Edit& edit, const sip::Message& response, std::string_view called_party,
                            const std::vector<Impu>& registered) {
    assert_one(edit, response, find_identity(called_party, registered), registered);
}

}  // namespace gmgate::daemon
