#include "gmctl/ladder.h"

#include <algorithm>
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

struct Columns {
    std::size_t phone, gateway, core;
};

Columns columns(std::size_t width) {
    if (width == 0) width = 110;
    width = std::clamp<std::size_t>(width, 60, 140);
    const auto left = kTimeWidth + 3;
    const auto step = (width - left - 8) / 2;
    return {left, left + step, left + 2 * step};
}

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

// Names of the two ends, as the picture has them.
std::pair<std::string_view, std::string_view> ends_of(const LadderMessage& message) {
    const std::string_view other = message.core_side ? "core" : "phone", ours = "gateway";
    return message.outward ? std::pair{ours, other} : std::pair{other, ours};
}

// " (+12.3 ms)"
std::string time_between(const LadderMessage& message, std::int64_t since) {
    if (since == 0 || message.microseconds < since) return {};
    return fmt::format(" (+{:.1f} ms)", static_cast<double>(message.microseconds - since) / 1000.0);
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

std::string ladder_head(std::size_t width) {
    const auto c = columns(width);
    std::string line = "time (UTC)", rule;
    put(line, c.phone - 2, "phone");
    put(line, c.gateway - 3, "gateway");
    put(line, c.core - 2, "core");
    for (const auto at : {c.phone, c.gateway, c.core}) put(rule, at, "|");
    return line + '\n' + rule + '\n';
}

std::string ladder_line(const LadderMessage& message, std::size_t width) {
    const auto c = columns(width);
    std::string line = short_time(printable(message.time));
    for (const auto at : {c.phone, c.gateway, c.core}) put(line, at, "|");
    const auto left = message.core_side ? c.gateway : c.phone, right = message.core_side ? c.core : c.gateway;
    const bool to_right = message.core_side == message.outward;  // out to the core, or in from the phone
    const auto room = right - left - 1;
    std::string arrow(room, '-');
    (to_right ? arrow.back() : arrow.front()) = to_right ? '>' : '<';
    auto label = message.core_side ? fmt::format(" {} ", label_of(message))
                                   : fmt::format(" {}, {} ", label_of(message), printable(message.protection));
    if (label.size() > room - 4) label = label.substr(0, room - 4);
    put(arrow, (room - label.size()) / 2, label);
    put(line, left + 1, arrow);
    return line + '\n';
}

std::string ladder_text(const LadderMessage& message, std::int64_t since) {
    const auto [from, to] = ends_of(message);
    auto out = fmt::format("{}  {} -> {}  {} -> {}/{}, {}{}\n", short_time(printable(message.time)), from, to,
                           printable(message.source), printable(message.destination), printable(message.transport),
                           printable(message.protection), time_between(message, since));
    for (std::size_t at = 0; at < message.bytes.size();) {
        const auto end = std::min(message.bytes.find('\n', at), message.bytes.size());
        auto line = message.bytes.substr(at, end - at);
        if (line.ends_with('\r')) line.pop_back();
        out += "    " + printable(line) + '\n';
        at = end + 1;
    }
    return out + '\n';
}

std::string ladder_mermaid_head() {
    return "sequenceDiagram\n    participant phone\n    participant gateway\n    participant core\n";
}

// Its grammar ends a text at a semicolon and takes # for the begin of a character's name.
std::string ladder_mermaid(const LadderMessage& message, std::int64_t since) {
    const auto [from, to] = ends_of(message);
    auto label = label_of(message);
    const bool is_answer = !label.empty() && label[0] >= '0' && label[0] <= '9';
    if (!message.core_side) label += ", " + printable(message.protection);
    label += time_between(message, since);
    std::ranges::replace_if(
        label, [](char c) { return c == ';' || c == '#'; }, ' ');
    return fmt::format("    {}{}{}: {}\n", from, is_answer ? "-->>" : "->>", to, label);
}

std::string ladder_html(const std::string& title, const std::vector<LadderMessage>& messages) {
    constexpr int kPhone = 190, kGateway = 530, kCore = 870, kTop = 70, kStep = 34;
    const auto height = kTop + kStep * static_cast<int>(messages.size()) + 30;
    std::string out = fmt::format(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title>\n<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n<style>\n"
        "body{{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:1000px;color:#1c1c1e;background:#fff}}\nh1{{font-size:1.3em}}\nsvg{{width:100%;height:auto}}\n"
        "details{{border-top:1px solid #ddd;padding:.35em 0}}\nsummary{{cursor:pointer}}\npre{{background:#f5f5f7;padding:.8em;overflow-x:auto;font:13px/1.4 ui-monospace,monospace;white-space:pre-wrap;word-break:break-all}}\n"
        ".dim{{color:#666}}\n</style></head><body>\n<h1>{0}</h1>\n<p class=\"dim\">{1} messages, decrypted by gmgated. ck, ik and digest responses are blotted out. Times are UTC.</p>\n"
        "<svg viewBox=\"0 0 1000 {2}\" role=\"img\" aria-label=\"ladder diagram\" font-family=\"system-ui,sans-serif\" font-size=\"14\">\n"
        "<defs><marker id=\"a\" viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto-start-reverse\"><path d=\"M0 0L10 5L0 10z\" fill=\"context-stroke\"/></marker></defs>\n",
        html_escaped(title), messages.size(), height);
    for (const auto& [x, name] : {std::pair{kPhone, "phone"}, {kGateway, "gateway"}, {kCore, "core"}})
        out += fmt::format(
            "<text x=\"{0}\" y=\"28\" text-anchor=\"middle\" font-weight=\"600\">{1}</text><line x1=\"{0}\" y1=\"40\" x2=\"{0}\" y2=\"{2}\" stroke=\"#999\"/>\n",
            x, name, height - 10);
    int y = kTop;
    for (const auto& message : messages) {
        const int left = message.core_side ? kGateway : kPhone, right = message.core_side ? kCore : kGateway;
        const bool to_right = message.core_side == message.outward;
        const auto label = label_of(message);
        const auto colour = colour_of(label);
        const bool is_protected = message.protection != "clear" && !message.core_side;
        out += fmt::format("<text x=\"8\" y=\"{0}\" fill=\"#666\" font-size=\"12\">{1}</text>", y + 4,
                           html_escaped(short_time(message.time)));
        out += fmt::format(
            "<line x1=\"{0}\" y1=\"{1}\" x2=\"{2}\" y2=\"{1}\" stroke=\"{3}\" stroke-width=\"{4}\" marker-end=\"url(#a)\"/>",
            to_right ? left + 2 : right - 2, y, to_right ? right - 2 : left + 2, colour, is_protected ? "2.4" : "1.3");
        out += fmt::format("<text x=\"{0}\" y=\"{1}\" text-anchor=\"middle\" fill=\"{2}\">{3}{4}</text>\n",
                           (left + right) / 2, y - 6, colour, html_escaped(label),
                           message.core_side
                               ? std::string{}
                               : " <tspan fill=\"#666\" font-size=\"12\">" +
                                     html_escaped(message.protection + ", " + message.transport) + "</tspan>");
        y += kStep;
    }
    out += "</svg>\n";
    for (const auto& message : messages)
        out += fmt::format(
            "<details><summary>{} &nbsp; <strong style=\"color:{}\">{}</strong> &nbsp; <span class=\"dim\">{} → {} {}, {}</span></summary><pre>{}</pre></details>\n",
            html_escaped(short_time(message.time)), colour_of(label_of(message)), html_escaped(label_of(message)),
            html_escaped(message.source), html_escaped(message.destination), html_escaped(message.transport),
            html_escaped(message.protection), html_escaped(message.bytes));
    return out + "</body></html>\n";
}

}  // namespace gmgate::gmctl
