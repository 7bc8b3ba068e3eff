#include "sip/message/doubt.h"

#include <algorithm>
#include <array>
#include <string>

#include "sip/message/headers.h"
#include "sip/message/scanner.h"
#include "sip/message/sec_agree.h"

namespace gmgate::sip {
namespace {

using Why = std::optional<std::string_view>;
constexpr std::string_view kTwice = "a parameter occurs twice";

/// One quoted string and nothing else.
bool is_quoted_string(std::string_view text) {
    if (text.size() < 2 || text.front() != '"') return false;
    const char* const end = text.data() + text.size();
    return scan::skip_quoted(text.data(), end) == end;
}

/// RFC 3261 §25.1 gen-value: token / host / quoted-string.
bool is_gen_value(std::string_view value) {
    if (value.starts_with('"')) return is_quoted_string(value);
    return !value.empty() && std::ranges::all_of(value, [](char c) {
        return scan::is(c, scan::kToken | scan::kHost) || c == '[' || c == ']' || c == ':';
    });
}

int hex(char c) {
    return c >= '0' && c <= '9'                             ? c - '0'
           : scan::lower(c) >= 'a' && scan::lower(c) <= 'f' ? scan::lower(c) - 'a' + 10
                                                            : -1;
}

/// RFC 3261 §19.1.4: an escaped octet is the octet, so `l%72` is `lr` for who unescapes before he compares.
std::string unescaped(std::string_view text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const bool is_escape = text[i] == '%' && i + 2 < text.size() && hex(text[i + 1]) >= 0 && hex(text[i + 2]) >= 0;
        out += is_escape ? static_cast<char>(hex(text[i + 1]) * 16 + hex(text[i + 2])) : text[i];
        if (is_escape) i += 2;
    }
    return out;
}

bool is_same_name(std::string_view a, std::string_view b) {
    if (same_token(a, b)) return true;
    if (a.find('%') == scan::kNone && b.find('%') == scan::kNone) return false;
    return same_token(unescaped(a), unescaped(b));
}

enum class Grammar {
    header,   ///< names are tokens, values what RFC 3261 §25.1 calls gen-value; no name twice
    uri,      ///< only: no name twice
    contact,  ///< only: none of kDecideContact twice. Feature tags (RFC 3840) are not ours to judge.
};
constexpr std::array<std::string_view, 4> kDecideContact{"expires", "+sip.instance", "reg-id", "q"};

bool decides(std::string_view name) {
    return std::ranges::any_of(kDecideContact, [&](std::string_view n) { return is_same_name(n, name); });
}

Why doubt_in_parameter(const Parameter& parameter, Grammar grammar) {
    const bool is_value = !parameter.has_value || is_gen_value(parameter.value);
    if (grammar == Grammar::header && (!scan::is_token(parameter.name) || !is_value)) return "a parameter is malformed";
    if (parameter.value.find('"') != scan::kNone && !is_quoted_string(parameter.value))
        return "a quoted string is malformed";
    return std::nullopt;
}

/// `;a=1;b` in the given grammar.
Why doubt_in_parameters(std::string_view text, Grammar grammar) {
    std::array<std::string_view, kMaxParameters> names;
    std::size_t count = 0;
    if (text.empty()) return std::nullopt;
    ParameterList list(text);
    while (const auto parameter = list.next()) {
        if (const Why why = doubt_in_parameter(*parameter, grammar)) return why;
        if (grammar == Grammar::contact && !decides(parameter->name)) continue;
        if (count == names.size()) return "there are too many parameters";
        for (std::size_t i = 0; i < count; ++i)
            if (is_same_name(names[i], parameter->name)) return kTwice;
        names[count++] = parameter->name;
    }
    return std::nullopt;
}

Why doubt_in_uri(const std::optional<Uri>& uri) {
    if (!uri) return "the URI is malformed";
    return doubt_in_parameters(uri->parameters, Grammar::uri);
}

/// From, To: what stands outside <…> must not look like a second address to anybody. In a REGISTER, where To says who
/// is registered, not even a reader that does not know escapes loses the address.
Why doubt_in_address(std::string_view value, bool is_register) {
    const auto address = NameAddr::parse(value);
    if (!address) return "it is no address";
    const bool is_bracketed = address->uri.data() != address->text.data();
    if (!is_bracketed && address->uri.find_first_of(",?") != scan::kNone) return "a URI with a comma or ? needs <>";
    if (address->display_name.starts_with('"')) {
        if (!is_quoted_string(address->display_name)) return "the display name is malformed";
        if (address->display_name.find_first_of("<>") != scan::kNone) return "the display name holds an angle bracket";
        if (is_register && address->display_name.find('\\') != scan::kNone) return "the display name holds a backslash";
    }
    const auto uri = Uri::parse(address->uri);
    if (uri && uri->is_sip() && !uri->headers.empty()) return "its URI carries header fields";
    if (const Why why = doubt_in_uri(uri)) return why;
    return doubt_in_parameters(address->parameters, Grammar::header);
}

/// An element of Contact. RFC 4475 §3.1.2.13: a bare URI with `?` is the registrar's business.
Why doubt_in_contact(const std::optional<NameAddr>& address, const std::optional<Uri>& uri) {
    if (!address) return "it is no address";
    if (address->display_name.starts_with('"') && !is_quoted_string(address->display_name))
        return "the display name is malformed";
    if (const Why why = doubt_in_uri(uri)) return why;
    return doubt_in_parameters(address->parameters, Grammar::contact);
}

Why doubt_in_route(std::string_view element) {
    const auto address = NameAddr::parse(element);
    if (!address) return "it is no address";
    if (address->uri.data() == address->text.data()) return "the URI stands without <>";
    if (const Why why = doubt_in_uri(Uri::parse(address->uri))) return why;
    return doubt_in_parameters(address->parameters, Grammar::header);
}

Why doubt_in_via(std::string_view element) {
    const auto via = Via::parse(element);
    if (!via) return "a value is empty or malformed";
    return doubt_in_parameters(via->parameters, Grammar::uri);
}

/// Applies `doubt` to each comma-separated element of each field of `id`.
template <class F>
Why doubt_in_elements(const Message& request, HeaderId id, F&& doubt) {
    Why found;
    request.for_each(id, [&](const HeaderField& field) {
        Split elements(field.value, ',');
        while (const auto element = elements.next())
            if (!found) found = doubt(*element);
    });
    return found;
}

Why doubt_in_contacts(const Message& request) {
    std::size_t count = 0;
    bool has_star = false;
    Why found = doubt_in_elements(request, HeaderId::contact, [&](std::string_view element) -> Why {
        ++count;
        const auto address = NameAddr::parse(element);
        if (element != "*") return doubt_in_contact(address, address ? Uri::parse(address->uri) : std::nullopt);
        has_star = true;
        return std::nullopt;
    });
    if (found) return found;
    if (count > 1 && has_star) return "* stands beside other values";
    // What an unknown method means by it is not known (RFC 4475 §3.1.1.5).
    const bool may_be_list = request.method() == Method::register_ || request.method() == Method::other;
    if (count > 1 && !may_be_list) return "there is more than one value";
    return std::nullopt;
}

/// RFC 3325 §9.1, §9.2: one value, or two of which one is a sip or sips URI and the other one a tel URI.
Why doubt_in_identities(const Message& request, HeaderId id) {
    std::array<std::size_t, 2> count{};
    return doubt_in_elements(request, id, [&](std::string_view element) -> Why {
        const auto address = NameAddr::parse(element);
        const auto uri = address ? Uri::parse(address->uri) : std::nullopt;
        if (const Why why = doubt_in_contact(address, uri)) return why;
        return ++count[uri->is_sip() ? 0 : 1] > 1 ? Why("there is more than one identity of a kind") : std::nullopt;
    });
}

Why doubt_in_option_tags(const Message& request, HeaderId id) {
    Why found;
    request.for_each(id, [&](const HeaderField& field) {
        Split tags(field.value, ',');
        while (const auto tag = tags.next())
            if (!field.value.empty() && !scan::is_token(*tag)) found = "an option tag is malformed";
    });
    return found;
}

/// What the reader of the list says, without the name of the header field before it.
std::optional<std::string> doubt_in_security(const Message& request, HeaderId id) {
    if (!request.has(id)) return std::nullopt;
    const auto list = SecurityList::from(request, id);
    if (list) return std::nullopt;
    std::string_view why = list.error().text;
    if (why.starts_with(to_string(id))) why.remove_prefix(to_string(id).size());
    return std::string(why.substr(std::min(why.find_first_not_of(": "), why.size())));
}

/// What has one value for a request, beside what the parser wants single in every message.
constexpr std::array kOnce{HeaderId::content_type,      HeaderId::content_encoding, HeaderId::expires, HeaderId::event,
                           HeaderId::refer_to,          HeaderId::session_expires,  HeaderId::min_se,  HeaderId::rack,
                           HeaderId::subscription_state};

Why doubt_in_max_forwards(const Message& request) {
    if (!request.has(HeaderId::max_forwards)) return std::nullopt;
    const auto hops = parse_u32(request.value(HeaderId::max_forwards));
    return hops && *hops <= 255 ? Why() : Why("it is no number from 0 to 255");
}

Why doubt_in_call_id(std::string_view value) {
    const bool is_word = std::ranges::none_of(value, [](char c) { return scan::is(c, scan::kSpace | scan::kControl); });
    return is_word && value.find(',') == scan::kNone ? Why() : Why("it is more than one word");
}

}  // namespace

std::optional<Doubt> find_doubt(const Message& request, bool is_mirrored) {
    std::optional<Doubt> doubt;
    const auto look = [&doubt](std::string_view field, Why why) {
        if (!doubt && why) doubt = Doubt{.field = field, .why = std::string(*why)};
    };
    const auto look_at = [&](HeaderId id, Why why) { look(to_string(id), why); };
    const bool is_register = request.method() == Method::register_;
    look("Request-URI", doubt_in_uri(Uri::parse(request.request_uri())));
    look_at(HeaderId::via, doubt_in_elements(request, HeaderId::via, doubt_in_via));
    for (const HeaderId id : {HeaderId::from, HeaderId::to})
        look_at(id, doubt_in_address(request.value(id), is_register));
    look_at(HeaderId::call_id, doubt_in_call_id(request.value(HeaderId::call_id)));
    look_at(HeaderId::max_forwards, doubt_in_max_forwards(request));
    look_at(HeaderId::contact, doubt_in_contacts(request));
    look_at(HeaderId::route, doubt_in_elements(request, HeaderId::route, doubt_in_route));
    for (const HeaderId id : {HeaderId::p_asserted_identity, HeaderId::p_preferred_identity})
        look_at(id, doubt_in_identities(request, id));
    for (const HeaderId id : kOnce) {
        const auto first = request.find(id);
        if (first && request.find(id, *first + 1)) look_at(id, "the header field occurs twice");
    }
    if (doubt || request.method() == Method::ack || request.method() == Method::cancel) return doubt;
    for (const HeaderId id : {HeaderId::require, HeaderId::proxy_require, HeaderId::supported})
        look_at(id, doubt_in_option_tags(request, id));
    for (const HeaderId id : {HeaderId::security_client, HeaderId::security_verify}) {
        if (id == HeaderId::security_verify && is_mirrored) continue;
        if (auto why = doubt ? std::nullopt : doubt_in_security(request, id))
            doubt = Doubt{.field = to_string(id), .why = std::move(*why)};
    }
    return doubt;
}

}  // namespace gmgate::sip
