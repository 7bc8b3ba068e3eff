#include "daemon/rules/dialogs.h"

#include <algorithm>
#include <ranges>

#include <fmt/format.h>

#include "base/random.h"
#include "daemon/rules/header_rules.h"
#include "sip/message/headers.h"

namespace gmgate::daemon {

using sip::HeaderId;

namespace {

constexpr std::size_t kMarkLetters = 17;

void add_lower(std::string& text, std::string_view part) {
    for (const char c : part) text += c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
}

/// One element of a route set: user, host and port. Phones lose, reorder and rewrite parameters and display names, and
/// some write the port that was left out; none of that leads elsewhere.
void add_element(std::string& text, std::string_view element) {
    text += '\n';
    const auto address = sip::NameAddr::parse(element);
    const auto uri = address ? sip::Uri::parse(address->uri) : std::nullopt;
    if (!uri || !uri->is_sip()) {
        text += element;
        return;
    }
    add_lower(text, uri->scheme);
    text += ':';
    text += uri->user;
    text += '@';
    add_lower(text, uri->host);
    const bool is_sips = uri->scheme.size() == 4;
    text += fmt::format(":{}", uri->port.value != 0 ? uri->port.value : is_sips ? 5061 : 5060);
}

template <class Elements>
std::string route_text(const Elements& elements) {
    std::string text;
    for (const std::string_view element : elements) add_element(text, element);
    return text;
}

/// The mark of that kind in the user part of a URI of ours; "" when there is none.
std::string_view mark_in(std::string_view user, char kind) {
    for (std::string_view marks = user.substr(token_in(user).size()); marks.size() > kMarkLetters;
         marks.remove_suffix(kMarkLetters))
        if (const auto last = marks.substr(marks.size() - kMarkLetters); last.front() == kind) return last;
    return {};
}

}  // namespace

std::string contact_text(const ContactKey& key) {
    return fmt::format("{}\n{}\n{}", key.impi.value, key.instance, key.reg_id);
}

DialogMarks::DialogMarks() { random_bytes(key_); }

std::string DialogMarks::mark(char kind, const ContactKey& owner, const sip::Message& message, std::string_view tag,
                              std::string_view route) const {
    std::string text =
        fmt::format("dialog {}\n{}\n{}\n{}", kind, contact_text(owner), message.value(HeaderId::call_id), tag);
    text += route;
    return kind + siphash_hex(key_, text);
}

std::string DialogMarks::user_towards_core(std::string_view token, const ContactKey& owner,
                                           const sip::Message& request) const {
    return fmt::format("{}.{}", token, mark('o', owner, request, sip::tag_of(request, HeaderId::from)));
}

std::string DialogMarks::user_towards_ue(std::string_view token, const ContactKey& owner,
                                         const sip::Message& request) const {
    const std::string_view tag = sip::tag_of(request, HeaderId::from);
    return fmt::format("{}.{}{}", token, mark('t', owner, request, tag),
                       mark('p', owner, request, tag, route_text(values_of(request, HeaderId::record_route))));
}

void DialogMarks::mark_response(sip::Edit& edit, const sip::Message& response, std::string_view token,
                                const ContactKey& owner, const OwnHosts& own_hosts) const {
    const std::string_view tag = sip::tag_of(response, HeaderId::to);
    if (tag.empty() || !response.has(HeaderId::record_route)) return;
    const std::vector<std::string_view> values = values_of(response, HeaderId::record_route);
    const auto user_at = [&](std::size_t index) {
        const auto uri = own_uri(values[index], own_hosts);
        return uri && token_in(uri->user) == token ? uri->user : std::string_view{};
    };
    // The phone's own pair stands at the bottom; with the same token above it the call has come round to the same
    // phone.
    std::size_t end = values.size();
    while (end > 0 && user_at(end - 1).empty()) --end;
    if (end == 0) return;
    const std::string_view user = user_at(end - 1);
    std::size_t begin = end - 1;
    if (begin > 0 && user_at(begin - 1) == user) --begin;
    const auto rest = std::views::reverse(
        std::views::take(values, static_cast<std::ptrdiff_t>(begin)));  // as the caller writes it (RFC 3261 §12.1.2)
    const std::string marked = fmt::format("{}.{}", token, mark('p', owner, response, tag, route_text(rest)));
    for (std::size_t index = begin; index < end; ++index) {
        const std::string_view old = user_at(index);
        const auto at = static_cast<std::size_t>(old.data() - response.bytes().data());
        edit.replace(at, at + old.size(), marked);
    }
}

bool DialogMarks::knows_from_ue(const ContactKey& owner, const sip::Message& request, const OwnRoute& route) const {
    const std::string_view tag = sip::tag_of(request, HeaderId::to);
    const std::string_view shown = mark_in(route.user, 'p');
    return !tag.empty() && !shown.empty() && shown == mark('p', owner, request, tag, route_text(route.rest));
}

bool DialogMarks::knows_from_core(const ContactKey& owner, const sip::Message& request, std::string_view user) const {
    const std::string_view tag = sip::tag_of(request, HeaderId::to);
    if (tag.empty()) return false;
    if (const auto shown = mark_in(user, 'o'); !shown.empty()) return shown == mark('o', owner, request, tag);
    const auto shown = mark_in(user, 't');
    return !shown.empty() && shown == mark('t', owner, request, sip::tag_of(request, HeaderId::from));
}

std::string DialogMarks::answer_mark(Leg leg, std::string_view whom, const sip::Message& message,
                                     std::string_view next_via) const {
    const auto via = sip::Via::parse(next_via);
    if (!via) return {};
    const std::string text = fmt::format("answer {}\n{}\n{}\n{}\n{}\n{}:{}\n{}", leg == Leg::to_core ? "core" : "phone",
                                         whom, message.value(HeaderId::call_id), sip::tag_of(message, HeaderId::from),
                                         message.cseq(), via->host, via->port.value, via->branch());
    return ".a" + siphash_hex(key_, text);
}

std::string DialogMarks::answer_mark(Leg leg, std::string_view whom, const sip::Message& request) const {
    if (request.method() != sip::Method::invite) return {};
    const auto vias = values_of(request, HeaderId::via);
    return vias.empty() ? std::string() : answer_mark(leg, whom, request, vias.front());
}

bool DialogMarks::is_own_answer(Leg leg, std::string_view whom, const sip::Message& response) const {
    const auto vias = values_of(response, HeaderId::via);
    const auto ours = vias.size() > 1 ? sip::Via::parse(vias[0]) : std::nullopt;
    const std::string expected = ours ? answer_mark(leg, whom, response, vias[1]) : std::string();
    return !expected.empty() && ours->branch().find(expected) != std::string_view::npos;
}

bool is_call_method(sip::Method method) {
    switch (method) {
        case sip::Method::invite:
        case sip::Method::ack:
        case sip::Method::bye:
        case sip::Method::cancel:
        case sip::Method::prack:
        case sip::Method::update:
        case sip::Method::info:
            return true;
        case sip::Method::register_:
        case sip::Method::options:
        case sip::Method::message:
        case sip::Method::subscribe:
        case sip::Method::notify:
        case sip::Method::refer:
        case sip::Method::publish:
        case sip::Method::other:
            return false;
    }
    return false;
}

}  // namespace gmgate::daemon
