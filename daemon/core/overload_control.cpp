#include "daemon/core/overload_control.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>

#include <fmt/format.h>

namespace gmgate::daemon {
namespace {

constexpr std::string_view kOffer = ";oc;oc-algo=\"loss\"";
constexpr std::array<std::string_view, 4> kNames{"oc", "oc-algo", "oc-validity", "oc-seq"};
constexpr milliseconds kLongest{600000};  // a server that is overloaded for longer says so again
constexpr std::size_t kFraction = 5;      // digits behind the point of oc-seq (§4.4)

std::optional<std::uint64_t> number(std::string_view text, std::size_t most_digits) {
    std::uint64_t value = 0;
    if (text.empty() || text.size() > most_digits) return std::nullopt;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return value;
}

/// "1282321615.782": seconds and their fraction, the latter in 1/100,000 so that "8" is more than "782".
std::optional<std::pair<std::uint64_t, std::uint64_t>> sequence_of(std::string_view text) {
    const std::size_t point = text.find('.');
    const auto whole = number(text.substr(0, point), 12);
    if (!whole) return std::nullopt;
    if (point == std::string_view::npos) return std::pair{*whole, std::uint64_t{0}};
    std::string fraction(text.substr(point + 1));
    const auto part = number(fraction, kFraction);
    if (!part) return std::nullopt;
    fraction.resize(kFraction, '0');
    return std::pair{*whole, *number(fraction, kFraction)};
}

bool names_loss(std::string_view algorithms) {
    while (!algorithms.empty() && (algorithms.front() == '"' || algorithms.front() == ' ')) algorithms.remove_prefix(1);
    while (!algorithms.empty() && (algorithms.back() == '"' || algorithms.back() == ' ')) algorithms.remove_suffix(1);
    while (!algorithms.empty()) {
        const std::size_t comma = algorithms.find(',');
        std::string_view one = algorithms.substr(0, comma);
        while (!one.empty() && one.front() == ' ') one.remove_prefix(1);
        while (!one.empty() && one.back() == ' ') one.remove_suffix(1);
        if (sip::same_token(one, "loss")) return true;
        if (comma == std::string_view::npos) break;
        algorithms.remove_prefix(comma + 1);
    }
    return false;
}

}  // namespace

std::string with_overload_offer(std::string request) {
    const std::size_t via = request.find("\r\nVia: ");
    const std::size_t end = via == std::string::npos ? via : request.find("\r\n", via + 2);
    if (end == std::string::npos) return request;
    std::string offering;  // kept as long as its transaction: of the right size, while an insertion doubles it
    offering.reserve(request.size() + kOffer.size());
    return offering.append(request, 0, end).append(kOffer).append(request, end);
}

std::optional<OverloadReport> read_overload_report(const sip::Via& via) {
    const auto oc = via.parameter("oc"), sequence = via.parameter("oc-seq");
    const auto percent = oc ? number(*oc, 3) : std::nullopt;
    if (!percent || *percent > 100 || !names_loss(via.parameter("oc-algo").value_or("")) || !sequence)
        return std::nullopt;
    OverloadReport report;
    report.percent = static_cast<unsigned>(*percent);
    const auto order = sequence_of(*sequence);
    if (!order) return std::nullopt;
    report.sequence = *order;
    if (const auto validity = via.parameter("oc-validity")) {
        const auto time = number(*validity, 9);
        if (!time) return std::nullopt;
        report.validity = std::min(milliseconds{*time}, kLongest);
    }
    return report;
}

std::string with_overload_report(std::string response, const OverloadReport& report) {
    const auto message = sip::OwnedMessage::parse(response);
    const auto via = message ? sip::top_via(**message) : std::nullopt;
    if (!via || !via->parameter("oc") || !names_loss(via->parameter("oc-algo").value_or(""))) return response;
    const std::string said = fmt::format("oc={};oc-algo=\"loss\";oc-validity={};oc-seq={}.{:05}", report.percent,
                                         report.validity.count(), report.sequence.first, report.sequence.second);
    std::string parameters;
    sip::ParameterList list(via->parameters);
    while (const auto one = list.next()) {
        if (std::ranges::any_of(kNames, [&](std::string_view name) { return sip::same_token(one->name, name); }))
            continue;
        parameters.append(one->name);
        if (one->has_value) parameters.append("=").append(one->value);
        parameters += ';';
    }
    const auto begin = static_cast<std::size_t>(via->parameters.data() - (*message)->bytes().data());
    response.replace(begin, via->parameters.size(), parameters + said);
    return response;
}

void OverloadControl::learn(const Endpoint& element, const sip::Message& response) {
    const auto via = sip::top_via(response);
    const auto report = via ? read_overload_report(*via) : std::nullopt;
    if (!report) return;
    const TimePoint now = clock_->now();
    auto known = orders_.find(element);
    if (known == orders_.end()) {
        if (orders_.size() >= limit_)
            std::erase_if(orders_, [now](const auto& entry) { return entry.second.until <= now; });
        if (orders_.size() >= limit_) return;
        known = orders_.emplace(element, Order{}).first;
    } else if (report->sequence <= known->second.report.sequence && known->second.until > now) {
        return;  // overtaken on its way
    }
    known->second = {*report, now + report->validity};
}

unsigned OverloadControl::percent(const Endpoint& element) const {
    const auto known = orders_.find(element);
    return known == orders_.end() || known->second.until <= clock_->now() ? 0 : known->second.report.percent;
}

bool OverloadControl::must_hold_back(const Endpoint& element) const {
    const unsigned share = percent(element);
    return share != 0 && draw_(99) < share;
}

}  // namespace gmgate::daemon
