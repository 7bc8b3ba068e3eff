#include "sip/message/digest.h"

#include "sip/message/headers.h"
#include "sip/message/scanner.h"

namespace gmgate::sip {
namespace {

/// Where the element that begins at `begin` ends: the next comma outside quotes, or the end. npos when a quoted string
/// does not end.
std::size_t element_end(std::string_view value, std::size_t begin) {
    bool quoted = false;
    for (std::size_t i = begin; i < value.size(); ++i) {
        if (quoted && value[i] == '\\') ++i;
        else if (value[i] == '"') quoted = !quoted;
        else if (value[i] == ',' && !quoted) return i;
    }
    return quoted ? scan::kNone : value.size();
}

/// A value is one quoted string or has no quote at all: what stands in `x="a"b` is read differently by different
/// parsers.
bool is_clean(std::string_view raw) {
    if (raw.empty() || raw.front() != '"') return raw.find('"') == scan::kNone;
    const char* const end = raw.data() + raw.size();
    return scan::skip_quoted(raw.data(), end) == end;
}

/// [begin, end) without white space at both ends.
void trim_range(std::string_view value, std::size_t& begin, std::size_t& end) {
    while (begin != end && scan::is(value[begin], scan::kSpace)) ++begin;
    while (end != begin && scan::is(value[end - 1], scan::kSpace)) --end;
}

/// Reads one element into `params`. False when it makes the whole list unreadable.
bool read_element(std::string_view value, std::size_t begin, std::size_t end, std::vector<AuthParam>& params) {
    trim_range(value, begin, end);
    if (begin == end) return true;  // empty element
    const std::string_view element = value.substr(begin, end - begin);
    const std::size_t equal = element.find('=');
    if (equal == scan::kNone) {
        if (!scan::is_token(element)) return false;
        if (params.empty() || params.back().raw_value.empty() || params.back().raw_value.starts_with('"')) {
            params.push_back({.name = element, .value = {}, .raw_value = {}, .begin = begin, .end = end});
            return true;
        }
        AuthParam& last = params.back();
        // Phones write `qop=auth,auth-int` without quotes: it belongs to the parameter before.
        const auto raw_begin = static_cast<std::size_t>(last.raw_value.data() - value.data());
        last.raw_value = last.value = value.substr(raw_begin, end - raw_begin);
        last.end = end;
        return true;
    }
    const std::string_view name = trim(element.substr(0, equal));
    const std::string_view raw = trim(element.substr(equal + 1));
    if (!scan::is_token(name) || !is_clean(raw)) return false;
    params.push_back({.name = name, .value = unquote(raw), .raw_value = raw, .begin = begin, .end = end});
    return true;
}

}  // namespace

std::optional<DigestParams> DigestParams::parse(std::string_view value) {
    constexpr std::string_view kScheme = "Digest";
    std::size_t at = 0;
    while (at < value.size() && scan::is(value[at], scan::kSpace)) ++at;
    if (!same_token(value.substr(at, kScheme.size()), kScheme)) return std::nullopt;
    at += kScheme.size();
    if (at < value.size() && !scan::is(value[at], scan::kSpace)) return std::nullopt;
    DigestParams result;
    result.params_.reserve(12);
    while (at < value.size()) {
        const std::size_t end = element_end(value, at);
        if (end == scan::kNone || !read_element(value, at, end, result.params_)) return std::nullopt;
        at = end + 1;
    }
    return result;
}

std::optional<std::string_view> DigestParams::get(std::string_view name) const {
    for (const AuthParam& param : params_)
        if (same_token(param.name, name)) return param.value;
    return std::nullopt;
}

bool DigestParams::has_response() const {
    const auto response = get("response");
    return response && !response->empty();
}

}  // namespace gmgate::sip
