#include "daemon/rules/own_marks.h"

#include <fmt/format.h>

#include "base/random.h"
#include "daemon/rules/header_rules.h"
#include "sip/message/headers.h"

namespace gmgate::daemon {

using sip::HeaderId;

namespace {

constexpr std::size_t kRunOctets = 4, kRandomOctets = 16, kHashLetters = 16;
constexpr std::size_t kTokenLetters = 2 * (kRunOctets + kRandomOctets) + kHashLetters;

}  // namespace

OwnMarks::OwnMarks() : run_(random_hex(kRunOctets)) { random_bytes(key_); }

std::string OwnMarks::new_token() const {
    std::string token = run_ + random_hex(kRandomOctets);
    token += siphash_hex(key_, token);
    return token;
}

TokenVerdict OwnMarks::judge(std::string_view token) const {
    if (token.size() != kTokenLetters || !token.starts_with(run_)) return TokenVerdict::foreign;
    const std::string_view body = token.substr(0, kTokenLetters - kHashLetters);
    return token.substr(body.size()) == siphash_hex(key_, body) ? TokenVerdict::genuine : TokenVerdict::tampered;
}

std::string OwnMarks::loop_mark(const sip::Message& request, std::string_view way) const {
    fmt::memory_buffer text;  // on the stack, as long as it is short
    text.append(way);
    const auto add = [&text](std::string_view part) {
        text.push_back('\n');
        text.append(part);
    };
    add(request.method_name());
    add(request.request_uri());
    for (const std::string_view route : values_of(request, HeaderId::route)) add(route);
    for (const HeaderId id : {HeaderId::from, HeaderId::to, HeaderId::call_id, HeaderId::cseq, HeaderId::proxy_require,
                              HeaderId::proxy_authorization})
        add(request.value(id));
    return "." + siphash_hex(key_, {text.data(), text.size()});
}

bool OwnMarks::has_looped(const sip::Message& request, std::string_view mark) {
    for (const std::string_view value : values_of(request, HeaderId::via))
        if (const auto via = sip::Via::parse(value); via && via->branch().ends_with(mark)) return true;
    return false;
}

}  // namespace gmgate::daemon
