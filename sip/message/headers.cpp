#include "sip/message/headers.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "sip/message/scanner.h"

namespace gmgate::sip {
namespace {

/// First of `wanted` outside quoted strings and <…>; npos when there is none. One that does not end reaches to the end.
std::size_t find_outside(std::string_view text, char wanted) {
    const char* const end = text.data() + text.size();
    const char* at = text.data();
    while ((at = scan::find_delimiter(at, end, wanted)) != end) {
        if (*at == wanted) return static_cast<std::size_t>(at - text.data());
        at = *at == '"' ? scan::skip_quoted(at, end) : scan::find_near(at, end, '>');
        if (at == nullptr || at == end) break;
    }
    return scan::kNone;
}

std::string_view from(std::string_view text, std::size_t begin) {
    return begin >= text.size() ? std::string_view{} : text.substr(begin);
}

/// host [ ":" port ], the whole text; LWS around the colon is legal in Via (RFC 3261 §25.1 COLON).
bool parse_host_port(std::string_view text, std::string_view& host, Port& port) {
    std::size_t end = 0;
    if (!text.empty() && text.front() == '[') {
        end = text.find(']');
        if (end == scan::kNone || !Address::parse(text.substr(0, end + 1))) return false;
        ++end;
    } else {
        while (end < text.size() && scan::is(text[end], scan::kHost)) ++end;
    }
    host = text.substr(0, end);
    if (host.empty()) return false;
    const std::string_view rest = trim(text.substr(end));
    port = Port{};
    if (rest.empty()) return true;
    if (rest.front() != ':') return false;
    const auto number = parse_u32(trim(rest.substr(1)));
    if (!number || *number == 0 || *number > std::numeric_limits<std::uint16_t>::max()) return false;
    port = Port(static_cast<std::uint16_t>(*number));
    return true;
}

}  // namespace

bool detail::same_letters(const char* a, const char* b, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i)
        if (a[i] != b[i] && scan::lower(a[i]) != scan::lower(b[i])) return false;
    return true;
}

std::string_view trim(std::string_view text) {
    while (!text.empty() && scan::is(text.front(), scan::kSpace)) text.remove_prefix(1);
    while (!text.empty() && scan::is(text.back(), scan::kSpace)) text.remove_suffix(1);
    return text;
}

std::optional<std::string_view> Split::next() {
    if (done_) return std::nullopt;
    const std::size_t at = find_outside(rest_, separator_);
    const std::string_view element = rest_.substr(0, at);
    if (at == scan::kNone) done_ = true;
    else rest_.remove_prefix(at + 1);
    return trim(element);
}

std::optional<Uri> Uri::parse(std::string_view text) {
    const std::size_t colon = text.find(':');
    if (colon == scan::kNone || colon == 0 || colon + 1 == text.size() || !scan::is(text.front(), scan::kAlpha))
        return std::nullopt;
    if (scan::any(text, scan::kNoUri)) return std::nullopt;
    Uri uri{.text = text,
            .scheme = text.substr(0, colon),
            .user = {},
            .host = {},
            .port = {},
            .parameters = {},
            .headers = {}};
    for (const char c : uri.scheme)
        if (!scan::is(c, scan::kAlpha | scan::kDigit) && c != '+' && c != '-' && c != '.') return std::nullopt;
    std::string_view rest = text.substr(colon + 1);
    const std::size_t at = uri.is_sip() ? rest.find('@') : scan::kNone;
    if (at != scan::kNone) {  // ';' and '?' are legal in a user part, '@' is not (RFC 3261 §25.1)
        const std::string_view userinfo = rest.substr(0, at);
        uri.user = userinfo.substr(0, userinfo.find(':'));
        rest.remove_prefix(at + 1);
        if (uri.user.empty() || rest.find('@') != scan::kNone) return std::nullopt;
    }
    const std::size_t question = rest.find('?');
    if (question != scan::kNone) uri.headers = rest.substr(question + 1);
    rest = rest.substr(0, question);
    const std::size_t semicolon = rest.find(';');
    if (semicolon != scan::kNone) uri.parameters = rest.substr(semicolon + 1);
    rest = rest.substr(0, semicolon);
    if (uri.is_sip()) return parse_host_port(rest, uri.host, uri.port) ? std::optional(uri) : std::nullopt;
    uri.user = rest;
    return rest.empty() ? std::nullopt : std::optional(uri);
}

std::optional<std::string_view> Uri::parameter(std::string_view name) const { return find_parameter(parameters, name); }

std::optional<NameAddr> NameAddr::parse(std::string_view element) {
    NameAddr result{.text = trim(element), .display_name = {}, .uri = {}, .parameters = {}};
    const std::string_view text = result.text;
    const std::size_t open = find_outside(text, '<');
    std::string_view rest;
    if (open == scan::kNone) {  // addr-spec: parameters belong to the header field (RFC 3261 §20)
        if (text.find('"') < text.find(';') && text.find('"') != scan::kNone) return std::nullopt;
        const std::size_t semicolon = text.find(';');
        result.uri = trim(text.substr(0, semicolon));
        rest = semicolon == scan::kNone ? std::string_view{} : text.substr(semicolon);
    } else {
        result.display_name = trim(text.substr(0, open));
        const std::size_t close = text.find('>', open);
        if (close == scan::kNone) return std::nullopt;
        result.uri = trim(text.substr(open + 1, close - open - 1));
        rest = trim(text.substr(close + 1));
    }
    if (result.uri.empty() || scan::any(result.uri, scan::kNoUri)) return std::nullopt;
    if (!rest.empty() && rest.front() != ';') return std::nullopt;
    result.parameters = trim(from(rest, 1));
    return result;
}

std::optional<std::string_view> NameAddr::parameter(std::string_view name) const {
    const auto value = find_parameter(parameters, name);
    return value ? std::optional(unquote(*value)) : std::nullopt;
}

// sent-protocol LWS sent-by *( SEMI via-params ); LWS may stand on both sides of every separator (RFC 4475 §3.1.1.1).
std::optional<Via> Via::parse(std::string_view element) {
    Via via{.text = trim(element), .transport = {}, .host = {}, .port = {}, .parameters = {}};
    const std::size_t semicolon = via.text.find(';');
    if (semicolon != scan::kNone) via.parameters = trim(via.text.substr(semicolon + 1));
    std::string_view rest = via.text.substr(0, semicolon);
    for (int part = 0; part < 2; ++part) {  // "SIP" / "2.0" /
        const std::size_t slash = rest.find('/');
        if (slash == scan::kNone || !scan::is_token(trim(rest.substr(0, slash)))) return std::nullopt;
        rest = trim(rest.substr(slash + 1));
    }
    std::size_t end = 0;
    while (end < rest.size() && scan::is(rest[end], scan::kToken)) ++end;
    via.transport = rest.substr(0, end);
    if (end == 0 || end == rest.size() || !scan::is(rest[end], scan::kSpace)) return std::nullopt;
    return parse_host_port(trim(rest.substr(end)), via.host, via.port) ? std::optional(via) : std::nullopt;
}

std::optional<std::string_view> Via::parameter(std::string_view name) const { return find_parameter(parameters, name); }
std::string_view Via::branch() const { return parameter("branch").value_or(std::string_view{}); }

std::optional<Via> top_via(const Message& message) {
    Split elements(message.value(HeaderId::via), ',');
    const auto first = elements.next();
    return first ? Via::parse(*first) : std::nullopt;
}

std::size_t via_count(const Message& message) {
    std::size_t count = 0;
    message.for_each(HeaderId::via, [&count](const HeaderField& field) {
        Split elements(field.value, ',');
        while (elements.next()) ++count;
    });
    return count;
}

std::optional<Parameter> ParameterList::next() {
    while (const auto element = split_.next()) {
        if (element->empty()) continue;
        const std::size_t equal = element->find('=');
        if (equal == scan::kNone) return Parameter{.name = *element, .value = {}, .has_value = false};
        return Parameter{
            .name = trim(element->substr(0, equal)), .value = trim(element->substr(equal + 1)), .has_value = true};
    }
    return std::nullopt;
}

std::optional<std::string_view> find_parameter(std::string_view parameters, std::string_view name) {
    if (parameters.empty()) return std::nullopt;
    ParameterList list(parameters);
    while (const auto parameter = list.next())
        if (same_token(parameter->name, name)) return parameter->value;
    return std::nullopt;
}

std::string_view unquote(std::string_view value) {
    return value.size() >= 2 && value.front() == '"' && value.back() == '"' ? value.substr(1, value.size() - 2) : value;
}

bool has_option_tag(const Message& message, HeaderId id, std::string_view tag) {
    bool found = false;
    message.for_each(id, [&](const HeaderField& field) {
        Split tags(field.value, ',');
        while (const auto element = tags.next()) found = found || same_token(*element, tag);
    });
    return found;
}

std::optional<std::uint32_t> parse_u32(std::string_view digits) {
    if (!digits.empty() && !scan::is(digits.front(), scan::kDigit)) return std::nullopt;
    std::uint32_t value = 0;
    const char* const end = digits.data() + digits.size();
    const auto [stop, problem] = std::from_chars(digits.data(), end, value);
    if (digits.empty() || problem != std::errc{} || stop != end) return std::nullopt;
    return value;
}

std::optional<std::uint32_t> contact_expires(const Message& message, const NameAddr& contact) {
    constexpr std::uint32_t kMalformed = 3600;  // RFC 3261 §20.10: a malformed value is taken for 3600
    const auto read = [](std::string_view text) {
        if (text.empty() || !scan::all(text, scan::kDigit)) return kMalformed;
        return parse_u32(text).value_or(std::numeric_limits<std::uint32_t>::max());
    };
    if (const auto parameter = contact.parameter("expires")) return read(*parameter);
    if (message.has(HeaderId::expires)) return read(message.value(HeaderId::expires));
    return std::nullopt;
}

std::string_view tag_of(const Message& message, HeaderId from_or_to) {
    const auto address = NameAddr::parse(message.value(from_or_to));
    return address ? address->parameter("tag").value_or(std::string_view{}) : std::string_view{};
}

}  // namespace gmgate::sip
