#include "sip_message.h"

#include "compact_names.h"
#include "text.h"

#include <algorithm>
#include <array>

namespace gmgate::peers {
namespace {

// RFC 3261 §7.3.3 and the later headers that IMS uses.
constexpr std::array<std::pair<char, std::string_view>, 14> kCompact{{{'a', "Accept-Contact"},
                                                                      {'c', "Content-Type"},
                                                                      {'e', "Content-Encoding"},
                                                                      {'f', "From"},
                                                                      {'i', "Call-ID"},
                                                                      {'k', "Supported"},
                                                                      {'l', "Content-Length"},
                                                                      {'m', "Contact"},
                                                                      {'o', "Event"},
                                                                      {'r', "Refer-To"},
                                                                      {'s', "Subject"},
                                                                      {'t', "To"},
                                                                      {'u', "Allow-Events"},
                                                                      {'v', "Via"}}};

std::string long_name(std::string_view name) {
    if (name.size() == 1)
        for (const auto& [compact, full] : kCompact)
            if (iequals(name, std::string_view(&compact, 1))) return std::string(full);
    return std::string(name);
}

bool is_token(std::string_view text) {
    return !text.empty() && std::ranges::all_of(text, [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               std::string_view("-.!%*_+`'~").find(c) != std::string_view::npos;
    });
}

struct Line {
    std::string_view text;
    std::string_view rest;
};

Line take_line(std::string_view text) {
    const auto end = text.find('\n');
    if (end == std::string_view::npos) return {text, {}};
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    return {line, text.substr(end + 1)};
}

}  // namespace

Result<SipMessage> SipMessage::parse(std::string_view text) {
    SipMessage out;
    auto [start, rest] = take_line(text);
    if (start.starts_with("SIP/2.0 ")) {
        const auto status = to_number<int>(start.substr(8, 3));
        if (!status || *status < 100 || *status > 699) return fail("malformed status line");
        out.status_ = *status;
        out.reason_ = start.size() > 12 ? start.substr(12) : std::string_view();
    } else {
        const auto first = start.find(' ');
        const auto last = start.rfind(' ');
        if (first == std::string_view::npos || last == first || start.substr(last + 1) != "SIP/2.0")
            return fail("malformed request line");
        out.method_ = start.substr(0, first);
        out.uri_ = trim(start.substr(first + 1, last - first - 1));
        if (!is_token(out.method_) || out.uri_.empty()) return fail("malformed request line");
    }
    bool ended = false;
    while (!rest.empty()) {
        const Line line = take_line(rest);
        rest = line.rest;
        if (line.text.empty()) {
            ended = true;
            break;
        }
        if (line.text.front() == ' ' || line.text.front() == '\t') {
            if (out.headers_.empty()) return fail("the message begins with a continuation line");
            out.headers_.back().value += ' ';
            out.headers_.back().value += trim(line.text);
            continue;
        }
        const auto colon = line.text.find(':');
        const auto name = trim(line.text.substr(0, colon));
        if (colon == std::string_view::npos || !is_token(name))
            return fail("malformed header line '{}'", line.text.substr(0, 40));
        out.headers_.push_back({long_name(name), std::string(trim(line.text.substr(colon + 1)))});
    }
    if (!ended) return fail("no blank line after the headers");
    out.body = rest;
    if (const std::string* length = out.find("Content-Length")) {
        const auto size = to_number<std::size_t>(*length);
        if (!size || *size > rest.size()) return fail("Content-Length does not fit the message");
        out.body.resize(*size);
    }
    if (out.status_ != 0) {
        const std::string cseq = out.get("CSeq");
        const auto blank = cseq.find_first_of(" \t");
        if (blank != std::string::npos) out.method_ = trim(std::string_view(cseq).substr(blank));
    }
    for (const char* required : {"Via", "From", "To", "Call-ID", "CSeq"})
        if (!out.find(required)) return fail("no {} header", required);
    return out;
}

SipMessage SipMessage::request(std::string method, std::string uri) {
    SipMessage out;
    out.method_ = std::move(method);
    out.uri_ = std::move(uri);
    return out;
}

SipMessage SipMessage::response_to(const SipMessage& request, int status, std::string_view reason,
                                   std::string_view to_tag) {
    SipMessage out;
    out.status_ = status;
    out.reason_ = reason.empty() ? reason_phrase(status) : reason;
    out.method_ = request.method_;
    for (const Header& header : request.headers_) {
        const bool copied = std::ranges::any_of(std::array{"Via", "From", "To", "Call-ID", "CSeq"},
                                                [&](const char* name) { return iequals(header.name, name); });
        if (copied || (status < 300 && iequals(header.name, "Record-Route"))) out.headers_.push_back(header);
    }
    if (status > 100 && !to_tag.empty() && out.tag("To").empty())
        out.set("To", out.get("To") + ";tag=" + std::string(to_tag));
    return out;
}

std::string SipMessage::to_string() const {
    std::string out =
        is_request() ? method_ + ' ' + uri_ + " SIP/2.0\r\n" : fmt::format("SIP/2.0 {} {}\r\n", status_, reason_);
    for (const Header& header : headers_)
        if (!iequals(header.name, "Content-Length")) out += header.name + ": " + header.value + "\r\n";
    out += fmt::format("Content-Length: {}\r\n\r\n", body.size());
    return out + body;
}

const std::string* SipMessage::find(std::string_view name) const {
    const auto it = std::ranges::find_if(headers_, [&](const Header& h) { return iequals(h.name, name); });
    return it == headers_.end() ? nullptr : &it->value;
}

std::string SipMessage::get(std::string_view name) const {
    const std::string* value = find(name);
    return value ? *value : std::string();
}

std::vector<std::string> SipMessage::list(std::string_view name) const {
    std::vector<std::string> out;
    for (const Header& header : headers_)
        if (iequals(header.name, name))
            for (std::string& entry : split_list(header.value, ',')) out.push_back(std::move(entry));
    return out;
}

bool SipMessage::list_has(std::string_view name, std::string_view token) const {
    return std::ranges::any_of(list(name), [&](const std::string& entry) { return iequals(entry, token); });
}

void SipMessage::add(std::string_view name, std::string value) {
    headers_.push_back({std::string(name), std::move(value)});
}

void SipMessage::add_front(std::string_view name, std::string value) {
    const auto it = std::ranges::find_if(headers_, [&](const Header& h) { return iequals(h.name, name); });
    const Header header{std::string(name), std::move(value)};
    headers_.insert(it == headers_.end() ? headers_.begin() : it, header);
}

void SipMessage::set(std::string_view name, std::string value) { set_list(name, {std::move(value)}); }

void SipMessage::remove(std::string_view name) {
    std::erase_if(headers_, [&](const Header& h) { return iequals(h.name, name); });
}

void SipMessage::set_list(std::string_view name, const std::vector<std::string>& entries) {
    auto at = std::ranges::find_if(headers_, [&](const Header& h) { return iequals(h.name, name); }) - headers_.begin();
    remove(name);
    for (const std::string& entry : entries) headers_.insert(headers_.begin() + at++, Header{std::string(name), entry});
}

std::uint32_t SipMessage::cseq() const {
    const std::string value = get("CSeq");
    return to_number<std::uint32_t>(std::string_view(value).substr(0, value.find_first_of(" \t"))).value_or(0);
}

std::string SipMessage::tag(std::string_view header) const {
    const auto value = NameAddr::parse(get(header));
    const std::string* found = value ? value->parameters.find("tag") : nullptr;
    return found ? *found : std::string();
}

std::string SipMessage::branch() const {
    const auto vias = list("Via");
    if (vias.empty()) return {};
    const auto via = Via::parse(vias.front());
    const std::string* found = via ? via->parameters.find("branch") : nullptr;
    return found ? *found : std::string();
}

std::string SipMessage::uri_of(std::string_view header) const {
    const auto entries = list(header);
    if (entries.empty()) return {};
    const auto value = NameAddr::parse(entries.front());
    return value ? value->uri : std::string();
}

std::string with_compact_names(std::string_view text) {
    const std::string_view head = text.substr(0, text.find("\r\n\r\n"));
    std::string out;
    for (std::size_t at = 0; at < head.size();) {
        const std::string_view line = head.substr(at, head.find("\r\n", at) - at);
        const std::string_view name = line.substr(0, line.find(':'));
        const auto row = std::ranges::find_if(kCompact, [&](const auto& r) { return iequals(r.second, name); });
        out += row == kCompact.end() || at == 0 ? std::string(line)
                                                : std::string(1, row->first) + std::string(line.substr(name.size()));
        out += "\r\n";
        at += line.size() + 2;
    }
    return out += text.substr(std::min(head.size() + 2, text.size()));
}

Result<Via> Via::parse(std::string_view text) {
    Via out;
    const auto semicolon = text.find(';');
    std::string head(trim(text.substr(0, semicolon)));
    if (semicolon != std::string_view::npos) out.parameters = Parameters::parse(text.substr(semicolon));
    const auto slash = head.rfind('/');
    const auto blank =
        slash == std::string::npos ? slash : head.find_first_of(" \t", head.find_first_not_of(" \t", slash + 1));
    if (blank == std::string::npos) return fail("malformed Via '{}'", text);
    out.transport = trim(std::string_view(head).substr(slash + 1, blank - slash - 1));
    const auto uri = SipUri::parse("sip:" + std::string(trim(std::string_view(head).substr(blank))));
    if (!uri) return std::unexpected(uri.error());
    out.host = uri->host;
    out.port = uri->port;
    return out;
}

std::string Via::to_string() const {
    return "SIP/2.0/" + transport + ' ' + host + (port != 0 ? fmt::format(":{}", port) : std::string()) +
           parameters.to_string();
}

std::string_view reason_phrase(int status) {
    switch (status) {
        case 100:
            return "Trying";
        case 180:
            return "Ringing";
        case 200:
            return "OK";
        case 202:
            return "Accepted";
        case 400:
            return "Bad Request";
        case 401:
            return "Unauthorized";
        case 403:
            return "Forbidden";
        case 404:
            return "Not Found";
        case 405:
            return "Method Not Allowed";
        case 408:
            return "Request Timeout";
        case 420:
            return "Bad Extension";
        case 421:
            return "Extension Required";
        case 430:
            return "Flow Failed";
        case 480:
            return "Temporarily Unavailable";
        case 481:
            return "Call/Transaction Does Not Exist";
        case 483:
            return "Too Many Hops";
        case 486:
            return "Busy Here";
        case 487:
            return "Request Terminated";
        case 494:
            return "Security Agreement Required";
        case 500:
            return "Server Internal Error";
        case 503:
            return "Service Unavailable";
        case 504:
            return "Server Time-out";
        default:
            return status < 200 ? "Progress" : status < 300 ? "OK" : "Failure";
    }
}

}  // namespace gmgate::peers
