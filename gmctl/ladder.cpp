#include "gmctl/ladder.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include <fmt/format.h>

#include "gmctl/table.h"

namespace gmgate::gmctl {
namespace {

constexpr std::size_t kTimeWidth = 12;  // "22:01:02.123"

std::string string_of(const nlohmann::json& json, const char* key) {
    const auto at = json.find(key);
    return at != json.end() && at->is_string() ? at->get<std::string>() : std::string{};
}

std::string first_line(const std::string& bytes) {
    return bytes.substr(0, std::min(bytes.find('\r'), bytes.find('\n')));
}

// "2026-11-25T22:01:02.123Z" → "22:01:02.123"
std::string short_time(const std::string& time) { return time.size() >= 23 ? time.substr(11, 12) : time; }

constexpr std::size_t kDifferenceWidth = 11;  // "+1234.5 ms"
constexpr std::size_t kWide = 100;

enum class Party { phone, gateway, core, other };

std::string_view name_of(Party party) {
    switch (party) {
        case Party::phone:
            return "phone";
        case Party::gateway:
            return "gateway";
        case Party::core:
            return "core";
        case Party::other:
            return "other phone";
    }
    return "";
}

std::vector<Party> parties(const LadderPlan& plan) {
    std::vector<Party> all{Party::phone, Party::gateway, Party::core};
    if (plan.has_other) all.push_back(Party::other);
    return all;
}

std::size_t width_of(const LadderPlan& plan) {
    const std::size_t whole = plan.has_other ? 140 : 110;
    return std::clamp<std::size_t>(plan.width == 0 ? whole : plan.width, 60, 140);
}

/// Where the lines of the parties stand on a terminal.
struct Columns {
    explicit Columns(const LadderPlan& plan) {
        const auto width = width_of(plan);
        left = kTimeWidth + 3 + (width >= kWide ? kDifferenceWidth : 0);
        step = (width - left - (plan.has_other ? 10 : 8)) / (parties(plan).size() - 1);
    }
    std::size_t at(Party party) const { return left + static_cast<std::size_t>(party) * step; }
    std::size_t left = 0, step = 0;
};

void put(std::string& line, std::size_t at, std::string_view text) {
    if (line.size() < at + text.size()) line.resize(at + text.size(), ' ');
    line.replace(at, text.size(), text);
}

std::string html_escaped(std::string_view text) {
    std::string out;
    for (const char c : text) {
        const auto octet = static_cast<unsigned char>(c);
        if (c == '&') out += "&amp;";
        else if (c == '<') out += "&lt;";
        else if (c == '>') out += "&gt;";
        else if (c == '"') out += "&quot;";
        else if (c == '\r') continue;
        else if (c == '\n' || c == '\t' || (octet >= 0x20 && octet < 0x7f)) out += c;
        else out += fmt::format("\\x{:02x}", octet);
    }
    return out;
}

/// From whom to whom.
std::pair<Party, Party> ends_of(const LadderPlan& plan, const LadderMessage& message) {
    const auto peer = message.core_side ? Party::core : is_other(plan, message) ? Party::other : Party::phone;
    return message.outward ? std::pair{Party::gateway, peer} : std::pair{peer, Party::gateway};
}

// "+12.3 ms"; empty without one before.
std::string difference(const LadderMessage& message, std::int64_t since) {
    if (since == 0 || message.microseconds < since) return {};
    const auto milliseconds = static_cast<double>(message.microseconds - since) / 1000.0;
    return milliseconds < 10000 ? fmt::format("+{:.1f} ms", milliseconds)
                                : fmt::format("+{:.0f} s", milliseconds / 1000);
}

// " (+12.3 ms)"
std::string time_between(const LadderMessage& message, std::int64_t since) {
    const auto text = difference(message, since);
    return text.empty() ? text : " (" + text + ")";
}

std::string time_column(const LadderMessage& message, std::int64_t since, bool is_wide) {
    const auto time = short_time(printable(message.time));
    const auto passed = difference(message, since);
    if (is_wide) return fmt::format("{:<12} {:>10}", time, passed);
    const bool is_soon = !passed.empty() && message.microseconds - since < 1'000'000;
    return is_soon ? fmt::format("{:>12}", passed) : time;
}

// Requests blue, good answers green, the rest red; 401 is part of every registration and no failure.
std::string_view colour_of(const std::string& label) {
    if (label.empty() || label[0] < '0' || label[0] > '9') return "#1f5fa8";
    return label[0] <= '2' ? "#2d7d32" : label.starts_with("401") ? "#9a6700" : "#b3261e";
}

}  // namespace

LadderMessage ladder_message(const nlohmann::json& json) {
    LadderMessage message;
    if (!json.is_object()) return message;
    const auto number = [&](const char* key) {
        return json.contains(key) && json[key].is_number() ? json[key].get<std::int64_t>() : 0;
    };
    message.number = static_cast<std::uint64_t>(number("number"));
    message.microseconds = number("microseconds");
    message.time = string_of(json, "time");
    message.transport = string_of(json, "transport");
    message.source = string_of(json, "source");
    message.destination = string_of(json, "destination");
    message.protection = string_of(json, "protection");
    message.bytes = string_of(json, "bytes");
    message.owner = string_of(json, "owner");
    message.outward = json.contains("outward") && json["outward"].is_boolean() && json["outward"].get<bool>();
    message.core_side = json.contains("core_side") && json["core_side"].is_boolean() && json["core_side"].get<bool>();
    return message;
}

std::string label_of(const LadderMessage& message) {
    const auto line = first_line(message.bytes);
    if (line.starts_with("SIP/2.0 ")) return printable(line.substr(8, 60));
    const auto method = line.substr(0, line.find(' '));
    const bool is_method = !method.empty() && method.size() <= 20 &&
                           std::ranges::all_of(method, [](char c) { return c >= 'A' && c <= 'Z'; });
    return is_method ? method : "SIP?";
}

LadderPlan ladder_plan(const std::string& phone, const std::vector<LadderMessage>& messages, std::size_t width) {
    LadderPlan plan{.phone = phone, .width = width};
    for (const auto& message : messages) {
        if (plan.phone.empty() && !message.core_side) plan.phone = message.owner;
        plan.has_other = plan.has_other || is_other(plan, message);
    }
    return plan;
}

bool is_other(const LadderPlan& plan, const LadderMessage& message) {
    return !message.core_side && !plan.phone.empty() && !message.owner.empty() && message.owner != plan.phone;
}

namespace {

// "401" for "401 Unauthorized"
std::string short_label(const LadderMessage& message) {
    const auto label = label_of(message);
    const bool is_answer = label.size() > 3 && label[0] >= '1' && label[0] <= '6' && label[3] == ' ';
    return is_answer ? label.substr(0, 3) : label;
}

}  // namespace

std::string ladder_head(const LadderPlan& plan) {
    const Columns columns(plan);
    std::string line = "time (UTC)", rule;
    for (const auto party : parties(plan)) {
        const auto name = name_of(party);
        put(line, columns.at(party) - (party == Party::gateway ? 3 : party == Party::other ? 5 : 2), name);
        put(rule, columns.at(party), "|");
    }
    return line + '\n' + rule + '\n';
}

std::string ladder_line(const LadderPlan& plan, const LadderMessage& message, std::int64_t since) {
    const Columns columns(plan);
    std::string line = time_column(message, since, width_of(plan) >= kWide);
    for (const auto party : parties(plan)) put(line, columns.at(party), "|");
    const auto [from, to] = ends_of(plan, message);
    const auto left = columns.at(std::min(from, to)), right = columns.at(std::max(from, to));
    const auto room = right - left - 1;
    std::string arrow(room, '-');
    (from < to ? arrow.back() : arrow.front()) = from < to ? '>' : '<';
    const auto protection = message.core_side ? std::string{} : ", " + printable(message.protection);
    auto label = fmt::format(" {}{} ", label_of(message), protection);
    // An answer's number says what its words say; over which SAs it went is said by nothing else.
    if (label.size() > room - 4) label = fmt::format(" {}{} ", short_label(message), protection);
    if (label.size() > room - 4) label = label.substr(0, room - 4);
    put(arrow, (room - label.size()) / 2, label);
    put(line, left + 1, arrow);
    return line + '\n';
}

std::string ladder_text(const LadderPlan& plan, const LadderMessage& message, std::int64_t since) {
    const auto [from, to] = ends_of(plan, message);
    auto out = fmt::format("{}  {} -> {}  {} -> {}/{}, {}{}\n", short_time(printable(message.time)), name_of(from),
                           name_of(to), printable(message.source), printable(message.destination),
                           printable(message.transport), printable(message.protection), time_between(message, since));
    for (std::size_t at = 0; at < message.bytes.size();) {
        const auto end = std::min(message.bytes.find('\n', at), message.bytes.size());
        auto line = message.bytes.substr(at, end - at);
        if (line.ends_with('\r')) line.pop_back();
        out += "    " + printable(line) + '\n';
        at = end + 1;
    }
    return out + '\n';
}

namespace {

// A participant's name is one word.
std::string_view mermaid_name(Party party) { return party == Party::other ? "other" : name_of(party); }

}  // namespace

std::string ladder_mermaid_head(const LadderPlan& plan) {
    std::string out = "sequenceDiagram\n";
    for (const auto party : parties(plan))
        out +=
            fmt::format("    participant {}{}\n", mermaid_name(party), party == Party::other ? " as other phone" : "");
    return out;
}

// Its grammar ends a text at a semicolon and takes # for the begin of a character's name.
std::string ladder_mermaid(const LadderPlan& plan, const LadderMessage& message, std::int64_t since) {
    const auto [from, to] = ends_of(plan, message);
    auto label = label_of(message);
    const bool is_answer = !label.empty() && label[0] >= '0' && label[0] <= '9';
    if (!message.core_side) label += ", " + printable(message.protection);
    label += time_between(message, since);
    std::ranges::replace_if(
        label, [](char c) { return c == ';' || c == '#'; }, ' ');
    return fmt::format("    {}{}{}: {}\n", mermaid_name(from), is_answer ? "-->>" : "->>", mermaid_name(to), label);
}

namespace {

constexpr int kTop = 70, kStep = 34, kFirst = 215, kWidth = 1000;

int x_of(const LadderPlan& plan, Party party) {
    const auto steps = static_cast<int>(parties(plan).size()) - 1;
    return kFirst + static_cast<int>(party) * (kWidth - 80 - kFirst) / steps;
}

// :target unfolds nothing by itself; browsers unfold what is inside of a closed `details` when a link leads there.
std::string html_head(const std::string& title, std::size_t messages) {
    return fmt::format(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title>\n"
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        "<style>\n"
        "body{{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:1000px;color:#1c1c1e;background:#fff}}\n"
        "h1{{font-size:1.3em}}\nsvg{{width:100%;height:auto}}\nsvg a:hover text{{text-decoration:underline}}\n"
        "details{{border-top:1px solid #ddd;padding:.35em 0}}\nsummary{{cursor:pointer}}\n"
        "pre{{background:#f5f5f7;padding:.8em;overflow-x:auto;font:13px/1.4 ui-monospace,monospace;"
        "white-space:pre-wrap;word-break:break-all}}\npre:target,g:target rect{{outline:2px solid #1f5fa8}}\n"
        ".dim{{color:#666}}\n</style></head><body>\n<h1>{0}</h1>\n"
        "<p class=\"dim\">{1} messages, decrypted by gmgated. ck, ik and digest responses are blotted out. Times are "
        "UTC. An arrow leads to its message.</p>\n",
        html_escaped(title), messages);
}

std::string html_lifelines(const LadderPlan& plan, int height) {
    auto out = fmt::format(
        "<svg viewBox=\"0 0 {0} {1}\" role=\"img\" aria-label=\"ladder diagram\" font-family=\"system-ui,sans-serif\" "
        "font-size=\"14\">\n<defs><marker id=\"a\" viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" markerWidth=\"7\" "
        "markerHeight=\"7\" orient=\"auto-start-reverse\"><path d=\"M0 0L10 5L0 10z\" fill=\"context-stroke\"/>"
        "</marker></defs>\n",
        kWidth, height);
    for (const auto party : parties(plan))
        out += fmt::format(
            "<text x=\"{0}\" y=\"28\" text-anchor=\"middle\" font-weight=\"600\">{1}</text><line "
            "x1=\"{0}\" y1=\"40\" x2=\"{0}\" y2=\"{2}\" stroke=\"#999\"/>\n",
            x_of(plan, party), name_of(party), height - 10);
    return out;
}

std::string html_arrow(const LadderPlan& plan, const LadderMessage& message, std::size_t index, std::int64_t since) {
    const int y = kTop + kStep * static_cast<int>(index);
    const auto [from, to] = ends_of(plan, message);
    const int begin = x_of(plan, from), end = x_of(plan, to), inwards = begin < end ? 2 : -2;
    const auto label = label_of(message);
    const auto colour = colour_of(label);
    const bool is_protected = message.protection != "clear" && !message.core_side;
    auto out = fmt::format(
        "<g id=\"a{0}\"><text x=\"8\" y=\"{1}\" fill=\"#666\" font-size=\"12\">{2}</text>"
        "<text x=\"170\" y=\"{1}\" fill=\"#666\" font-size=\"12\" text-anchor=\"end\">{3}</text><a href=\"#m{0}\">",
        index + 1, y + 4, html_escaped(short_time(message.time)), difference(message, since));
    // The rectangle, which nobody sees, is easier to hit than a line.
    out += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"transparent\"/>",
                       std::min(begin, end), y - 20, std::abs(end - begin), 26);
    out += fmt::format(
        "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" stroke=\"{}\" stroke-width=\"{}\" "
        "marker-end=\"url(#a)\"/>",
        begin + inwards, y, end - inwards, y, colour, is_protected ? "2.4" : "1.3");
    const auto detail = message.core_side
                            ? std::string{}
                            : " <tspan fill=\"#666\" font-size=\"12\">" +
                                  html_escaped(message.protection + ", " + message.transport) + "</tspan>";
    return out + fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" fill=\"{}\">{}{}</text></a></g>\n",
                             (begin + end) / 2, y - 6, colour, html_escaped(label), detail);
}

std::string html_message(const LadderMessage& message, std::size_t index, std::int64_t since) {
    return fmt::format(
        "<details><summary>{1} &nbsp; <strong style=\"color:{2}\">{3}</strong> &nbsp; <span class=\"dim\">{4} → {5} {6}, "
        "{7}{8}</span> <a href=\"#a{0}\">arrow</a></summary><pre id=\"m{0}\">{9}</pre></details>\n",
        index + 1, html_escaped(short_time(message.time)), colour_of(label_of(message)),
        html_escaped(label_of(message)), html_escaped(message.source), html_escaped(message.destination),
        html_escaped(message.transport), html_escaped(message.protection), time_between(message, since),
        html_escaped(message.bytes));
}

}  // namespace

std::string ladder_html(const std::string& title, const LadderPlan& plan, const std::vector<LadderMessage>& messages) {
    const auto since = [&](std::size_t i) { return i == 0 ? 0 : messages[i - 1].microseconds; };
    auto out =
        html_head(title, messages.size()) + html_lifelines(plan, kTop + kStep * static_cast<int>(messages.size()) + 30);
    for (std::size_t i = 0; i < messages.size(); ++i) out += html_arrow(plan, messages[i], i, since(i));
    out += "</svg>\n";
    for (std::size_t i = 0; i < messages.size(); ++i) out += html_message(messages[i], i, since(i));
    return out + "</body></html>\n";
}

}  // namespace gmgate::gmctl
