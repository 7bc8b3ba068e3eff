#include "daemon/rules/request_syntax.h"

#include <algorithm>
#include <array>
#include <string_view>

#include <fmt/format.h>

#include "sip/message/doubt.h"
#include "sip/message/headers.h"

namespace gmgate::daemon {
namespace {

using sip::HeaderId;

/// TS 24.229 §5.4.3.2, §5.7.1: what an S-CSCF or an application server routes. `urn` is urn:service (emergency) and
/// GRUUs.
constexpr std::array<std::string_view, 6> kRoutable{"sip", "sips", "tel", "urn", "pres", "im"};

std::optional<Answer> check_request_uri(std::string_view text) {
    const std::string_view scheme = text.substr(0, text.find(':'));
    if (std::ranges::none_of(kRoutable, [&](std::string_view known) { return sip::same_token(scheme, known); }))
        return make_answer(416, "Unsupported URI Scheme", "the Request-URI's scheme is not routed here");
    const auto uri = sip::Uri::parse(text);
    if (!uri) return make_answer(400, "Bad Request-URI", "the Request-URI is malformed");
    if (uri->is_sip() && !uri->headers.empty())
        return make_answer(400, "Header Fields in Request-URI", "the Request-URI carries header fields");
    return std::nullopt;
}

bool is_via_list(const sip::Message& request) {
    bool ok = true;
    request.for_each(HeaderId::via, [&ok](const sip::HeaderField& field) {
        sip::Split elements(field.value, ',');
        while (const auto element = elements.next()) ok = ok && sip::Via::parse(*element).has_value();
    });
    return ok;
}

/// RFC 4475 §3.1.2.15: a display name outside quotes is made of tokens, and what is wrong with it must not be passed
/// on. We refuse the characters by which another parser could read another address or a second value; what harms nobody
/// (umlauts, parentheses) passes.
bool is_harmless(std::string_view display_name) {
    if (display_name.starts_with('"')) return display_name.ends_with('"') && display_name.size() > 1;
    return display_name.find_first_of(",;:@\"\\<>") == std::string_view::npos;
}

std::optional<Answer> check_address(const sip::Message& request, HeaderId field, const std::string& name,
                                    Sender sender) {
    const auto address = sip::NameAddr::parse(request.value(field));
    if (!address) return make_answer(400, "Bad " + name, name + " is no address");
    if (sender == Sender::phone && !is_harmless(address->display_name))
        return make_answer(400, "Bad Display Name", "the display name of " + name + " needs quotes");
    return std::nullopt;
}

}  // namespace

std::optional<Answer> check_syntax(const sip::Message& request, Sender sender) {
    if (auto objection = check_request_uri(request.request_uri())) return objection;
    const bool is_via_good = sender == Sender::phone ? is_via_list(request) : sip::top_via(request).has_value();
    if (!is_via_good) return make_answer(400, "Bad Via", "a Via value is empty or malformed");
    if (auto objection = check_address(request, HeaderId::from, "From", sender)) return objection;
    return check_address(request, HeaderId::to, "To", sender);
}

std::optional<Answer> check_unambiguous(const sip::Message& request, const sip::RequestCredentials& credentials,
                                        bool is_mirrored) {
    std::string field, why;
    if (const auto doubt = sip::find_doubt(request, is_mirrored)) {
        field = doubt->field;
        why = fmt::format("{}: {}", doubt->field, doubt->why);
    } else if (const auto objection = credentials.objection()) {
        field = "Credentials";
        why = fmt::format("credentials: {}", *objection);
    } else {
        return std::nullopt;
    }
    return make_answer(400, "Bad " + field, why);
}

}  // namespace gmgate::daemon
