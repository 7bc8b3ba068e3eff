#include "daemon/rules/from_ue_checks.h"

#include <algorithm>

#include <fmt/format.h>

#include "daemon/rules/header_rules.h"
#include "daemon/rules/identity.h"
#include "daemon/rules/own_marks.h"
#include "daemon/rules/request_syntax.h"
#include "sip/message/headers.h"
#include "sip/message/sec_agree.h"

namespace gmgate::daemon {

using sip::HeaderId;

std::optional<Counter> Answer::status_counter() const {
    switch (status) {
        case 400:
            return Counter::reject_400;
        case 403:
            return Counter::reject_403;
        case 420:
            return Counter::reject_420;
        case 421:
            return Counter::reject_421;
        case 494:
            return Counter::reject_494;
        default:
            return status >= 500 && status < 600 ? std::optional(Counter::reject_5xx) : std::nullopt;
    }
}

Answer make_answer(int status, std::string phrase, std::string why, std::optional<Counter> counter) {
    Answer answer;
    answer.status = status;
    answer.phrase = std::move(phrase);
    answer.why = std::move(why);
    answer.counter = counter;
    return answer;
}

std::string unknown_proxy_options(const sip::Message& request, bool refuse_mediasec) {
    std::string unknown;
    for (const std::string_view tag : values_of(request, HeaderId::proxy_require)) {
        if (sip::same_token(tag, "sec-agree") || (!refuse_mediasec && sip::same_token(tag, "mediasec"))) continue;
        unknown += fmt::format("{}{}", unknown.empty() ? "" : ", ", tag);
    }
    return unknown;
}

std::optional<Answer> check_proxyable(const sip::Message& request, bool refuse_mediasec, Sender sender) {
    if (auto objection = check_syntax(request, sender)) return objection;
    if (const auto index = request.find(HeaderId::max_forwards)) {
        const auto hops = sip::parse_u32(request.field(*index).value);
        if (!hops)
            return Answer{.status = 400,
                          .phrase = "Bad Max-Forwards",
                          .extra = {},
                          .why = "Max-Forwards is no number",
                          .counter = {}};
        if (*hops == 0)
            return Answer{
                .status = 483, .phrase = "Too Many Hops", .extra = {}, .why = "Max-Forwards is used up", .counter = {}};
    }
    if (request.method() == sip::Method::ack || request.method() == sip::Method::cancel)
        return std::nullopt;  // RFC 3261 §20.29
    const std::string unknown = unknown_proxy_options(request, refuse_mediasec);
    if (unknown.empty()) return std::nullopt;
    return Answer{.status = 420,
                  .phrase = "Bad Extension",
                  .extra = {fmt::format("Unsupported: {}", unknown)},
                  .why = fmt::format("Proxy-Require names what is not supported here: {}", unknown),
                  .counter = {}};
}

std::optional<Answer> check_loop(const sip::Message& request, std::string_view mark) {
    if (!OwnMarks::has_looped(request, mark)) return std::nullopt;
    return make_answer(482, "Loop Detected", "the request has passed here before, unchanged");
}

bool mirrors_to_the_letter(const sip::Message& request, const PatternedText& sent) {
    const auto index = request.find(HeaderId::security_verify);
    return index && !sent.empty() && sent == request.field(*index).value &&
           !request.find(HeaderId::security_verify, *index + 1);
}

std::optional<Answer> check_security_verify(const sip::Message& request, const SaSet* carried_by,
                                            const Registration& registration, bool ignore_q) {
    if (request.method() == sip::Method::ack || request.method() == sip::Method::cancel) return std::nullopt;
    if (!request.has(HeaderId::security_verify)) return std::nullopt;
    if (carried_by == nullptr && (!registration.tls || registration.tls->security_verify.empty()))
        return std::nullopt;  // G-28
    if (carried_by != nullptr && mirrors_to_the_letter(request, carried_by->security_server)) return std::nullopt;
    std::vector<std::string> server_line;
    if (carried_by == nullptr)
        server_line.push_back(fmt::format("Security-Server: {}", registration.tls->security_verify.to_string()));
    else if (!carried_by->security_server.empty())
        server_line.push_back(fmt::format("Security-Server: {}", carried_by->security_server.text()));

    const Result<sip::SecurityList> received = sip::SecurityList::from(request, HeaderId::security_verify);
    if (!received)
        return Answer{
            .status = 400, .phrase = "Bad Security-Verify", .extra = {}, .why = received.error().text, .counter = {}};

    sip::CompareOptions options;
    options.ignore_q = ignore_q;
    std::string why = "no Security-Server was sent for this set";
    if (carried_by == nullptr && !sip::difference(registration.tls->security_verify, *received, options))
        return std::nullopt;
    const auto matches = [&](const SaSet& set) {
        const Result<sip::SecurityList> sent = sip::SecurityList::parse(set.security_server.text(), true);
        if (!sent || sent->empty()) return false;
        const auto difference = sip::difference(*sent, *received, options);
        if (difference && &set == carried_by) why = *difference;
        return !difference;
    };
    if (carried_by != nullptr && matches(*carried_by)) return std::nullopt;
    if (std::ranges::any_of(registration.sets,
                            [&](const auto& set) { return set.get() != carried_by && matches(*set); }))
        return std::nullopt;
    return Answer{.status = 494,
                  .phrase = "Security Agreement Required",
                  .extra = std::move(server_line),
                  .why = std::move(why),
                  .counter = Counter::verify_mismatch};
}

RouteVerdict compare_route(const std::vector<std::string_view>& remaining,
                           const std::vector<std::string>& service_route) {
    const auto same_uri = [](std::string_view a, std::string_view b) {
        const auto left = sip::NameAddr::parse(a);
        const auto right = sip::NameAddr::parse(b);
        return left && right && left->uri == right->uri;
    };
    return std::ranges::equal(remaining, service_route, same_uri) ? RouteVerdict::same : RouteVerdict::differs;
}

namespace {

std::string uri_in(std::string_view element) {
    const auto address = sip::NameAddr::parse(element);
    return address ? std::string(address->uri) : std::string();
}

}  // namespace

std::string first_route_uri(const std::vector<std::string_view>& route) {
    return route.empty() ? std::string() : uri_in(route.front());
}

std::string first_route_uri(const std::vector<std::string>& route) {
    return route.empty() ? std::string() : uri_in(route.front());
}

const std::vector<std::string>& route_for(const Registration& registration,
                                          const std::optional<std::string>& asserted) {
    const auto is_asserted = [&](const Impu& impu) {
        return impu.value == *asserted || covers_identity(impu.value, *asserted);
    };
    if (asserted)
        for (const auto& identity : registration.identities)
            if (std::ranges::any_of(identity.impus, is_asserted)) return identity.service_route.value();
    return registration.service_route.value();
}

bool has_no_to_tag(const sip::Message& request) { return sip::tag_of(request, HeaderId::to).empty(); }

}  // namespace gmgate::daemon
