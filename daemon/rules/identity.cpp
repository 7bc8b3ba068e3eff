#include "daemon/rules/identity.h"

#include <algorithm>

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

const Impu* find_identity(std::string_view name_addr, const std::vector<Impu>& registered) {
    const auto address = sip::NameAddr::parse(name_addr);
    if (!address) return nullptr;
    const auto hit =
        std::ranges::find_if(registered, [&](const Impu& impu) { return is_same_identity(impu.value, address->uri); });
    return hit == registered.end() ? nullptr : &*hit;
}

void assert_one(sip::Edit& edit, const sip::Message& message, const Impu* preferred,
                const std::vector<Impu>& registered) {
    for (const std::string_view value : values_of(message, HeaderId::p_preferred_identity))
        if (preferred == nullptr) preferred = find_identity(value, registered);
    if (preferred == nullptr && !registered.empty()) preferred = &registered.front();  // C-61: the default identity
    edit.remove_all(HeaderId::p_preferred_identity);
    if (preferred != nullptr) edit.append(fmt::format("P-Asserted-Identity: <{}>", preferred->value));
}

}  // namespace

bool is_same_identity(std::string_view a, std::string_view b) {
    const auto left = sip::Uri::parse(a);
    const auto right = sip::Uri::parse(b);
    if (!left || !right || !sip::same_token(left->scheme, right->scheme)) return false;
    if (sip::same_token(left->scheme, "tel")) return digits_of(left->user) == digits_of(right->user);
    return left->user == right->user && sip::same_token(left->host, right->host) && left->port == right->port;
}

void assert_identity(sip::Edit& edit, const sip::Message& message, const std::vector<Impu>& registered) {
    assert_one(edit, message, nullptr, registered);
}

void assert_called_identity(sip::Edit& edit, const sip::Message& response, std::string_view called_party,
                            const std::vector<Impu>& registered) {
    assert_one(edit, response, called_party.empty() ? nullptr : find_identity(called_party, registered), registered);
}

}  // namespace gmgate::daemon
