// REGISTER on its way to the core and its answers on their way back (requirements C.2, C.3, C.5).
#include <array>

#include <fmt/format.h>

#include "base/secret.h"
#include "daemon/rules/auth_params.h"
#include "daemon/rules/header_rules.h"
#include "sip/message/headers.h"

namespace gmgate::daemon {

using sip::HeaderId;

std::optional<std::string> register_to_core(const sip::Message& request, const RegisterToCore& rules) {
    sip::Edit edit(request);
    if (!decrement_max_forwards(edit, request)) return std::nullopt;  // RFC 3261 §16.3 item 3

    mark_received(edit, request, rules.received);  // C-19
    push_via(edit, rules.transport, rules.via_host, rules.branch);
    edit.remove_all(HeaderId::route);            // a REGISTER has no Service-Route yet: nobody but us chooses its way
    strip_untrusted(edit, request);              // H-2, C-3, C-11, C-15
    edit.remove_all(HeaderId::security_client);  // C-16
    edit.remove_all(HeaderId::security_verify);
    rewrite_option_tags(edit, request, HeaderId::require, true, "path");  // C-12
    rewrite_option_tags(edit, request, HeaderId::proxy_require, true);

    // C-17, C.3: no claim of the UE survives; ours goes into the credentials that were checked, none are invented.
    std::string indicator;
    if (rules.integrity_protected)
        indicator = rules.bare_integrity_protected
                        ? fmt::format("integrity-protected={}", *rules.integrity_protected)
                        : fmt::format("integrity-protected=\"{}\"", *rules.integrity_protected);
    write_credentials(edit, request, HeaderId::authorization, rules.credentials.authorization, indicator);
    write_credentials(edit, request, HeaderId::proxy_authorization, rules.credentials.proxy_authorization);

    edit.append(fmt::format("Path: <{}>", rules.path_uri));  // C-11
    if (!rules.visited_network_id.empty())
        edit.append(fmt::format("P-Visited-Network-ID: {}", token_or_quoted(rules.visited_network_id)));  // C-14
    edit.append(fmt::format("P-Charging-Vector: {}", charging_vector(rules.orig_ioi)));                   // C-13
    return edit.to_string();
}

namespace {

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; }

/// Looks for a key, letters alike in either case. Horspool's search: it looks at one octet in key.size() as long as
/// nothing fits, since every answer to a REGISTER is searched for two keys that it hardly ever holds.
class KeySearch {
public:
    /// `key` outlives it and is not empty.
    explicit KeySearch(std::string_view key) : key_(key) {
        skips_.fill(key.size());
        for (std::size_t i = 0; i + 1 < key.size(); ++i) skip_at(key[i]) = key.size() - 1 - i;
    }
    /// Where it stands, from `from` on; npos when it does not.
    std::size_t find(std::string_view text, std::size_t from) {
        while (from + key_.size() <= text.size()) {
            const std::string_view here = text.substr(from, key_.size());
            if (sip::same_token(here, key_)) return from;
            from += skip_at(here.back());
        }
        return std::string_view::npos;
    }

private:
    std::size_t& skip_at(char c) { return skips_[static_cast<unsigned char>(lower(c))]; }

    std::string_view key_;
    std::array<std::size_t, 256> skips_{};
};

/// H-1: blots out every copy of a key that stands elsewhere in the message (an echo in a Warning, a debug header, a
/// body). It goes on behind what it blotted out: a "key" of asterisks ends, too.
void blot_out(std::string& text, std::string_view key) {
    constexpr std::size_t kShortestKey = 16;  // shorter values are no keys, and would hit innocent text
    if (key.size() < kShortestKey) return;
    KeySearch search(key);
    for (auto at = search.find(text, 0); at != std::string::npos; at = search.find(text, at + key.size()))
        text.replace(at, key.size(), key.size(), '*');
}

}  // namespace

std::string register_response_to_ue(const sip::Message& response, const std::optional<std::string>& security_server) {
    sip::Edit edit(response);
    std::vector<std::string_view> keys;
    pop_via(edit, response);
    soften_503(edit, response);
    for (const HeaderId id : {HeaderId::www_authenticate, HeaderId::proxy_authenticate, HeaderId::authentication_info})
        remove_auth_params(edit, response, id, {"ck", "ik"}, &keys);  // C-31, C-36, B-4
    strip_for_ue(edit, response);                                     // C-3
    if (security_server) edit.append(fmt::format("Security-Server: {}", *security_server));
    std::string text = edit.to_string();
    for (const std::string_view key : keys) blot_out(text, key);
    return text;
}

}  // namespace gmgate::daemon
