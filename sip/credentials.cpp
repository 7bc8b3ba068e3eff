#include "sip/credentials.h"

#include <algorithm>
#include <array>

#include "sip/headers.h"
#include "sip/scanner.h"

namespace gmgate::sip {
namespace {

constexpr std::string_view kIndicator = "integrity-protected";
/// RFC 3261 §25.1: written without quotes. Everything else that Digest knows is written with them.
constexpr std::array<std::string_view, 4> kBare{"algorithm", "qop", "nc", "stale"};
constexpr std::array<std::string_view, 9> kQuoted{"username", "realm",  "nonce", "uri",   "response",
                                                  "cnonce",   "opaque", "auts",  "domain"};
/// What must not seem to stand inside a value of another parameter, for the reader that does not know about quotes.
constexpr std::array<std::string_view, 3> kDecisive{"username", "response", kIndicator};

bool is_one_of(std::string_view name, auto& names) {
    return std::ranges::any_of(names, [&](std::string_view n) { return same_token(n, name); });
}

std::size_t skip_space(std::string_view text, std::size_t at) {
    while (at < text.size() && scan::is(text[at], scan::kSpace)) ++at;
    return at;
}

std::size_t skip_token(std::string_view text, std::size_t at) {
    while (at < text.size() && scan::is(text[at], scan::kToken)) ++at;
    return at;
}

/// `name` at a word boundary, then LWS, then '='; quotes are ignored on purpose.
bool shows_name(std::string_view text, std::string_view name) {
    for (std::size_t i = 0; i + name.size() <= text.size(); ++i) {
        if (!same_token(text.substr(i, name.size()), name)) continue;
        if (i > 0 && std::string_view(" \t\r\n,\";'=").find(text[i - 1]) == std::string_view::npos) continue;
        const std::size_t after = skip_space(text, i + name.size());
        if (after < text.size() && text[after] == '=') return true;
    }
    return false;
}

bool shows_decisive(std::string_view text) {
    return std::ranges::any_of(kDecisive, [&](std::string_view name) { return shows_name(text, name); });
}

/// Inside quotes: no escapes (a reader that does not know them ends the string elsewhere), no controls, no line ends.
bool is_plain(char c) { return c != '\\' && c != '"' && c != '\t' && !scan::is(c, scan::kControl); }
/// Without quotes: what tokens, base64 and URIs are made of.
bool is_bare(char c) { return is_plain(c) && c > ' ' && c < '\x7f' && c != ',' && c != '<' && c != '>'; }

}  // namespace

void Credentials::refuse(std::string_view why) {
    kind_ = Kind::ambiguous;
    why_ = why;
    params_.clear();
}

Credentials Credentials::read(const Message& request, HeaderId id) {
    constexpr std::string_view kDigest = "Digest";
    Credentials result;
    const auto index = request.find(id);
    if (!index) return result;
    const std::string_view value = request.field(*index).value;
    const std::size_t end = skip_token(value, 0);
    if (request.find(id, *index + 1)) result.refuse("there is more than one such header field");
    else if (end == 0 || (end < value.size() && !scan::is(value[end], scan::kSpace)))
        result.refuse("it does not begin with a scheme");
    else if (same_token(value.substr(0, end), kDigest)) result.read_digest(value.substr(end));
    else if (shows_decisive(value)) result.refuse("another scheme than Digest shows parameters of Digest");
    else result.kind_ = Kind::other, result.text_ = value;
    return result;
}

void Credentials::read_digest(std::string_view text) {
    params_.reserve(12);
    kind_ = Kind::digest;
    for (std::size_t at = skip_space(text, 0); at < text.size(); at = skip_space(text, at)) {
        if (text[at] == ',') {
            ++at;
            continue;
        }
        if (!read_param(text, at)) return;
        at = skip_space(text, at);
        if (at < text.size() && text[at] != ',')
            return refuse("a parameter does not end where the next one should begin");
    }
    if (params_.empty()) return refuse("Digest has no parameters");
    if (has_response() && username().empty()) refuse("there is a response without a username");
}

/// One parameter from `at` on; `at` is then behind it. False after refuse().
bool Credentials::read_param(std::string_view text, std::size_t& at) {
    const auto fail = [this](std::string_view why) {
        refuse(why);
        return false;
    };
    const std::size_t begin = at;
    at = skip_token(text, at);
    const std::string_view name = text.substr(begin, at - begin);
    if (name.empty()) return fail("a parameter has no name");
    const std::size_t equal = skip_space(text, at);
    if (equal == text.size() || text[equal] != '=') {
        if (!continue_list(name)) return fail("a parameter has no value");
        return true;
    }
    at = skip_space(text, equal + 1);
    Param param{.name = name, .value = {}, .is_quoted = at < text.size() && text[at] == '"'};
    const std::size_t from = param.is_quoted ? ++at : at;
    while (at < text.size() && (param.is_quoted ? is_plain(text[at]) : is_bare(text[at]))) ++at;
    param.value = text.substr(from, at - from);
    if (!param.is_quoted) return keep(param);
    if (at == text.size()) return fail("a quoted string does not end");
    if (text[at] != '"') return fail("a quoted string holds a backslash, a line end or a control character");
    ++at;
    return keep(param);
}

/// Pixel phones write `qop=auth,auth-int` without quotes: a lone word that follows at once belongs to that value.
bool Credentials::continue_list(std::string_view word) {
    if (params_.empty() || params_.back().is_quoted || !same_token(params_.back().name, "qop")) return false;
    const char* const first = params_.back().value.data();
    const char* const last = first + params_.back().value.size();
    if (std::string_view(last, word.data()).find_first_not_of(" \t\r\n,") != std::string_view::npos) return false;
    params_.back().value = {first, word.data() + word.size()};
    return true;
}

bool Credentials::keep(const Param& param) {
    const auto fail = [this](std::string_view why) {
        refuse(why);
        return false;
    };
    if (same_token(param.name, kIndicator)) return true;  // C-17, B-110: whatever it says
    if (get(param.name)) return fail("a parameter occurs twice");
    if (same_token(param.name, "username*")) return fail("there is a second way to say the username");
    if (shows_decisive(param.value)) return fail("a value seems to hold another parameter");
    const bool is_username = same_token(param.name, "username");
    if (is_username && (scan::any(param.value, scan::kSpace) || param.value.find(',') != std::string_view::npos))
        return fail("the username holds a blank or a comma");
    if (params_.size() == kMaxParameters) return fail("there are too many parameters");
    params_.push_back(param);
    return true;
}

std::optional<std::string_view> Credentials::get(std::string_view name) const {
    for (const Param& param : params_)
        if (same_token(param.name, name)) return param.value;
    return std::nullopt;
}

std::string Credentials::to_string(std::string_view indicator) const {
    if (kind_ == Kind::other) return std::string(text_);
    if (kind_ != Kind::digest) return {};
    std::string out = "Digest ";
    out.reserve(512);
    for (const Param& param : params_) {
        if (&param != &params_.front()) out += ", ";
        for (const char c : param.name) out += scan::lower(c);
        out += '=';
        const bool may_be_bare = is_one_of(param.name, kBare) || (!param.is_quoted && !is_one_of(param.name, kQuoted));
        const bool is_bare_now = may_be_bare && scan::is_token(param.value);
        if (!is_bare_now) out += '"';
        const bool is_list = same_token(param.name, "qop");  // blanks of an unquoted list
        for (const char c : param.value)
            if (!is_list || !scan::is(c, scan::kSpace)) out += c;
        if (!is_bare_now) out += '"';
    }
    if (!indicator.empty()) out.append(", ").append(indicator);
    return out;
}

RequestCredentials RequestCredentials::read(const Message& request) {
    return {.authorization = Credentials::read(request, HeaderId::authorization),
            .proxy_authorization = Credentials::read(request, HeaderId::proxy_authorization)};
}

std::optional<std::string_view> RequestCredentials::objection() const {
    for (const Credentials* each : {&authorization, &proxy_authorization})
        if (each->kind() == Credentials::Kind::ambiguous) return each->why();
    const bool is_both = !authorization.username().empty() && !proxy_authorization.username().empty();
    if (is_both && authorization.username() != proxy_authorization.username())
        return "Authorization and Proxy-Authorization name two users";
    return std::nullopt;
}

}  // namespace gmgate::sip
