#include "sip_uri.h"

#include "text.h"

#include <algorithm>

namespace gmgate::peers {

Parameters Parameters::parse(std::string_view text) {
    Parameters out;
    for (const std::string& part : split_list(text, ';')) {
        const auto equals = part.find('=');
        if (equals == std::string::npos) out.entries_.emplace_back(part, "");
        else
            out.entries_.emplace_back(trim(std::string_view(part).substr(0, equals)),
                                      trim(std::string_view(part).substr(equals + 1)));
    }
    return out;
}

const std::string* Parameters::find(std::string_view name) const {
    const auto it = std::ranges::find_if(entries_, [&](const auto& entry) { return iequals(entry.first, name); });
    return it == entries_.end() ? nullptr : &it->second;
}

void Parameters::set(std::string_view name, std::string value) {
    const auto it = std::ranges::find_if(entries_, [&](const auto& entry) { return iequals(entry.first, name); });
    if (it == entries_.end()) entries_.emplace_back(name, std::move(value));
    else it->second = std::move(value);
}

void Parameters::remove(std::string_view name) {
    std::erase_if(entries_, [&](const auto& entry) { return iequals(entry.first, name); });
}

std::string Parameters::to_string() const {
    std::string out;
    for (const auto& [name, value] : entries_) {
        out += ';' + name;
        if (!value.empty()) out += '=' + value;
    }
    return out;
}

Result<SipUri> SipUri::parse(std::string_view text) {
    text = trim(text);
    SipUri out;
    const auto colon = text.find(':');
    if (colon == std::string_view::npos) return fail("'{}' is not a URI", text);
    out.scheme = lower(text.substr(0, colon));
    std::string_view rest = text.substr(colon + 1);
    if (const auto question = rest.find('?'); question != std::string_view::npos) rest = rest.substr(0, question);
    if (out.scheme != "sip" && out.scheme != "sips") {
        const auto semicolon = rest.find(';');
        out.user = rest.substr(0, semicolon);
        if (semicolon != std::string_view::npos) out.parameters = Parameters::parse(rest.substr(semicolon));
        return out;
    }
    if (const auto at = rest.find('@'); at != std::string_view::npos) {
        out.user = rest.substr(0, at);
        rest = rest.substr(at + 1);
    }
    if (const auto semicolon = rest.find(';'); semicolon != std::string_view::npos) {
        out.parameters = Parameters::parse(rest.substr(semicolon));
        rest = rest.substr(0, semicolon);
    }
    const auto host_end = rest.starts_with('[') ? rest.find(']') + 1 : std::min(rest.find(':'), rest.size());
    if (host_end == 0) return fail("'{}': the IPv6 reference has no ']'", text);
    out.host = rest.substr(0, host_end);
    rest = rest.substr(host_end);
    if (out.host.empty()) return fail("'{}' has no host", text);
    if (rest.starts_with(':')) {
        const auto port = to_number<std::uint16_t>(rest.substr(1));
        if (!port || *port == 0) return fail("'{}' has no valid port", text);
        out.port = *port;
    }
    return out;
}

std::string SipUri::to_string() const {
    std::string out = scheme + ':' + user;
    if (!host.empty()) {
        if (!user.empty()) out += '@';
        out += host;
        if (port != 0) out += fmt::format(":{}", port);
    }
    return out + parameters.to_string();
}

std::string SipUri::aor() const {
    if (host.empty()) return scheme + ':' + user;
    return scheme + ':' + user + '@' + lower(host);
}

Result<NameAddr> NameAddr::parse(std::string_view text) {
    text = trim(text);
    NameAddr out;
    std::size_t search = 0;
    if (text.starts_with('"')) {
        search = 1;
        while (search < text.size() && text[search] != '"') search += text[search] == '\\' ? 2 : 1;
    }
    const auto open = text.find('<', search);
    if (open == std::string_view::npos) {
        const auto semicolon = text.find(';');  // RFC 3261 §20.10: without brackets all parameters are the header's
        out.uri = trim(text.substr(0, semicolon));
        if (semicolon != std::string_view::npos) out.parameters = Parameters::parse(text.substr(semicolon));
    } else {
        const auto close = text.find('>', open);
        if (close == std::string_view::npos) return fail("'{}': '<' without '>'", text);
        out.display = trim(text.substr(0, open));
        out.uri = trim(text.substr(open + 1, close - open - 1));
        out.parameters = Parameters::parse(text.substr(close + 1));
    }
    if (out.uri.empty()) return fail("'{}' holds no URI", text);
    return out;
}

std::string NameAddr::to_string() const {
    return (display.empty() ? std::string() : display + ' ') + '<' + uri + '>' + parameters.to_string();
}

}  // namespace gmgate::peers
