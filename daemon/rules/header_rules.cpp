#include "daemon/rules/header_rules.h"

#include <algorithm>
#include <array>
#include <charconv>

#include <fmt/format.h>

#include "base/random.h"

namespace gmgate::daemon {

using sip::HeaderId;

namespace {

/// Offset in the message of a view into it.
std::size_t offset_in(const sip::Message& message, std::string_view part) {
    return static_cast<std::size_t>(part.data() - message.bytes().data());
}

bool contains_no_case(std::string_view text, std::string_view word) {
    return !std::ranges::search(text, word, [](char a, char b) { return (a | 0x20) == (b | 0x20); }).empty();
}

/// Takes the first `count` comma-separated elements of a field away; the whole field when nothing is left.
void remove_front(sip::Edit& edit, const sip::Message& message, std::size_t index, std::size_t count) {
    const sip::HeaderField field = message.field(index);
    sip::Split elements(field.value, ',');
    std::optional<std::string_view> element;
    for (std::size_t i = 0; i <= count; ++i) element = elements.next();
    if (!element) return edit.remove_field(index);
    edit.replace(offset_in(message, field.value), offset_in(message, *element), {});
}

/// Header fields that only nodes inside the trust domain may set (TS 24.229 §4.4, RFC 3325 §5, RFC 7315). Ids and, for
/// those without an id, names.
constexpr std::array kUntrusted{
    HeaderId::p_charging_vector,
    HeaderId::p_charging_function_addresses,
    HeaderId::p_visited_network_id,
    HeaderId::p_asserted_identity,
    HeaderId::p_asserted_service,
    HeaderId::p_served_user,
    HeaderId::p_private_network_indication,
    HeaderId::p_associated_uri,
    HeaderId::p_called_party_id,
    HeaderId::resource_priority,
    HeaderId::feature_caps,
    HeaderId::path,
    HeaderId::service_route,
    HeaderId::security_server,  // RFC 3329 §2.3.1: only the first-hop proxy says it
};
constexpr std::array<std::string_view, 5> kUntrustedNames{"P-User-Database", "P-Profile-Key", "Restoration-Info",
                                                          "Relayed-Charge", "P-Refused-URI-List"};

/// Inside knowledge of the network that a phone has no business with.
constexpr std::array kNotForUe{
    HeaderId::p_charging_vector,     HeaderId::p_charging_function_addresses,
    HeaderId::p_visited_network_id,  HeaderId::p_served_user,
    HeaderId::security_server,        // an agreement of some other hop
    HeaderId::p_access_network_info,  // where the other one is: not for outside the trust domain (RFC 7315 §4.4)
};
constexpr std::array<std::string_view, 4> kNotForUeNames{"P-User-Database", "P-Profile-Key", "Restoration-Info",
                                                         "Relayed-Charge"};

bool is_token_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("-.!%*_+`'~").find(c) != std::string_view::npos;
}

/// RFC 7315 §5.4: access-net-spec with the flag np, spelled network-provided.
bool is_network_provided(std::string_view access_network) {
    return contains_no_case(access_network, "network-provided");
}

}  // namespace

std::vector<std::string_view> values_of(const sip::Message& message, HeaderId id) {
    std::vector<std::string_view> values;
    message.for_each(id, [&](const sip::HeaderField& field) {
        sip::Split elements(field.value, ',');
        while (const auto element = elements.next())
            if (!element->empty()) values.push_back(*element);
    });
    return values;
}

void keep_values(sip::Edit& edit, const sip::Message& message, HeaderId id,
                 const std::function<bool(std::string_view)>& keep) {
    for (auto index = message.find(id); index; index = message.find(id, *index + 1)) {
        std::string kept;
        bool changed = false;
        sip::Split elements(message.field(*index).value, ',');
        while (const auto element = elements.next()) {
            if (element->empty()) continue;
            if (!keep(*element)) {
                changed = true;
                continue;
            }
            if (!kept.empty()) kept += ", ";
            kept += *element;
        }
        if (!changed) continue;
        if (kept.empty()) edit.remove_field(*index);
        else edit.replace_value(*index, std::move(kept));
    }
}

void rewrite_option_tags(sip::Edit& edit, const sip::Message& message, HeaderId id, bool without_sec_agree,
                         std::string_view add) {
    bool wanted = !add.empty() && !sip::has_option_tag(message, id, add);
    for (auto index = message.find(id); index; index = message.find(id, *index + 1)) {
        std::string kept;
        bool changed = false;
        sip::Split tags(message.field(*index).value, ',');
        while (const auto tag = tags.next()) {
            if (tag->empty()) continue;
            if (without_sec_agree && (sip::same_token(*tag, "sec-agree") || sip::same_token(*tag, "mediasec"))) {
                changed = true;
                continue;
            }
            if (!kept.empty()) kept += ", ";
            kept += *tag;
        }
        if (wanted) {  // merged into the first field that there is
            if (!kept.empty()) kept += ", ";
            kept += add;
            wanted = false;
            changed = true;
        }
        if (!changed) continue;
        if (kept.empty()) edit.remove_field(*index);  // an empty header goes
        else edit.replace_value(*index, std::move(kept));
    }
    if (wanted) edit.append(fmt::format("{}: {}", sip::to_string(id), add));
}

std::string token_or_quoted(std::string_view text) {
    if (!text.empty() && std::ranges::all_of(text, is_token_char)) return std::string(text);
    if (text.size() >= 2 && text.front() == '"' && text.back() == '"')
        return std::string(text);  // configured with its quotes
    std::string quoted = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') quoted += '\\';
        quoted += c;
    }
    return quoted += '"';
}

void mark_received(sip::Edit& edit, const sip::Message& request, const sip::Flow& flow) {
    const auto via = sip::top_via(request);
    if (!via) return;
    const bool asks_rport = via->parameter("rport").has_value();
    // RFC 3261 §18.2.1: received when sent-by is a name or another address; RFC 3581 §4: always together with rport.
    const bool needs_received = asks_rport || via->sent_by_address() != flow.remote.address;
    const bool has_received = via->parameter("received").has_value();
    if (!needs_received && !has_received) return;

    // Rebuild the parameters only: what the UE wrote in received or rport is not believed.
    std::string parameters;
    sip::ParameterList list(via->parameters);
    while (const auto parameter = list.next()) {
        if (sip::same_token(parameter->name, "received")) continue;
        if (sip::same_token(parameter->name, "rport")) {
            parameters += fmt::format(";rport={}", flow.remote.port.value);
            continue;
        }
        parameters += fmt::format(";{}", parameter->name);
        if (parameter->has_value) parameters += fmt::format("={}", parameter->value);
    }
    if (needs_received) parameters += fmt::format(";received={}", flow.remote.address.to_string());
    const std::size_t end = offset_in(request, via->text) + via->text.size();
    if (via->parameters.empty()) return edit.replace(end, end, std::move(parameters));
    std::size_t begin = offset_in(request, via->parameters);
    while (begin > offset_in(request, via->text) && request.bytes()[begin - 1] != ';')
        --begin;  // the ';' before, and LWS
    edit.replace(begin - 1, end, std::move(parameters));
}

void soften_503(sip::Edit& edit, const sip::Message& response) {
    if (response.status() == 503) edit.replace(0, response.start_line().size(), "SIP/2.0 500 Server Internal Error");
}

void push_via(sip::Edit& edit, sip::Transport transport, std::string_view via_host, std::string_view branch) {
    edit.insert_before(HeaderId::via, {"Via: SIP/2.0/", sip::to_string(transport), " ", via_host, ";branch=", branch});
}

void pop_via(sip::Edit& edit, const sip::Message& response) {
    if (const auto index = response.find(HeaderId::via)) remove_front(edit, response, *index, 1);
}

bool has_hops_left(const sip::Message& request) {
    const auto index = request.find(HeaderId::max_forwards);
    return !index || sip::parse_u32(request.field(*index).value).value_or(0) != 0;
}

bool decrement_max_forwards(sip::Edit& edit, const sip::Message& request) {
    const auto index = request.find(HeaderId::max_forwards);
    if (!index) {
        edit.insert_before(HeaderId::from, "Max-Forwards: 70");  // RFC 3261 §16.6 step 3
        return true;
    }
    const auto hops = sip::parse_u32(request.field(*index).value);
    if (!hops || *hops == 0) return false;
    edit.replace_value(*index, std::to_string(std::min<std::uint32_t>(*hops, 255) - 1));
    return true;
}

std::size_t count_own_routes(const std::vector<std::string_view>& routes, const OwnHosts& own_hosts) {
    std::vector<std::string_view> seen;
    std::string_view user;
    for (const std::string_view element : routes) {
        const auto address = sip::NameAddr::parse(element);
        const auto uri = address ? sip::Uri::parse(address->uri) : std::nullopt;
        if (!uri || !own_hosts.contain(*uri) || std::ranges::find(seen, uri->text) != seen.end()) break;
        if (!uri->user.empty() && !user.empty() && uri->user != user) break;
        if (!uri->user.empty()) user = uri->user;
        seen.push_back(uri->text);
    }
    return seen.size();
}

std::optional<std::string> pop_own_route(sip::Edit& edit, const sip::Message& request, const OwnHosts& own_hosts) {
    return pop_routes(edit, request, count_own_routes(values_of(request, HeaderId::route), own_hosts));
}

std::optional<std::string> pop_routes(sip::Edit& edit, const sip::Message& request, std::size_t count) {
    if (count == 0) return std::nullopt;
    std::size_t left = count;
    const auto first = sip::NameAddr::parse(values_of(request, HeaderId::route).front());
    for (auto index = request.find(HeaderId::route); index && left > 0;
         index = request.find(HeaderId::route, *index + 1)) {
        std::size_t here = 0, ours = 0;  // elements to pass over, empty ones included
        sip::Split elements(request.field(*index).value, ',');
        for (auto element = elements.next(); element && left > 0; element = elements.next()) {
            ++here;
            if (element->empty()) continue;
            --left;
            ours = here;
        }
        if (ours > 0) remove_front(edit, request, *index, ours);
    }
    return std::string(first->uri);
}

void strip_untrusted(sip::Edit& edit, const sip::Message& message) {
    for (const HeaderId id : kUntrusted) edit.remove_all(id);
    edit.remove_all(kUntrustedNames);
    keep_values(edit, message, HeaderId::p_access_network_info,
                [](std::string_view v) { return !is_network_provided(v); });  // C-15
}

std::string without_untrusted(std::string_view fields) {
    std::string out;
    bool is_kept = false;
    while (!fields.empty()) {
        const std::string_view line = fields.substr(0, std::min(fields.find("\r\n"), fields.size()) + 2);
        fields.remove_prefix(line.size());
        if (line.front() != ' ' && line.front() != '\t') {  // else the value goes on
            const std::string_view name = line.substr(0, line.find_first_of(": \t"));
            is_kept =
                std::ranges::find(kUntrusted, sip::header_id(name)) == kUntrusted.end() &&
                std::ranges::none_of(kUntrustedNames, [&](std::string_view n) { return sip::same_token(n, name); });
        }
        if (is_kept) out += line;
    }
    return out;
}

bool asks_for_id_privacy(const sip::Message& message) {
    bool asks = false, asks_none = false;
    message.for_each(HeaderId::privacy, [&](const sip::HeaderField& field) {
        sip::Split lists(field.value, ',');
        while (const auto list = lists.next()) {
            sip::ParameterList values(*list);
            while (const auto value = values.next()) {
                asks |= sip::same_token(value->name, "id");
                asks_none |= sip::same_token(value->name, "none");
            }
        }
    });
    return asks && !asks_none;
}

void strip_for_ue(sip::Edit& edit, const sip::Message& message) {
    for (const HeaderId id : kNotForUe) edit.remove_all(id);
    edit.remove_all(kNotForUeNames);
    if (asks_for_id_privacy(message)) edit.remove_all(HeaderId::p_asserted_identity);
}

void strip_sec_agree(sip::Edit& edit, const sip::Message& request) {
    edit.remove_all(HeaderId::security_client);
    edit.remove_all(HeaderId::security_verify);
    rewrite_option_tags(edit, request, HeaderId::require, true);
    rewrite_option_tags(edit, request, HeaderId::proxy_require, true);
}

std::string charging_vector(std::string_view orig_ioi) {
    // RFC 7315 §4.6: globally unique for at least a month; 128 random bits are.
    std::string value;
    value.reserve(64 + orig_ioi.size());
    value.append("icid-value=\"").append(random_hex(16)).append("\"");
    if (!orig_ioi.empty()) value.append(";orig-ioi=").append(token_or_quoted(orig_ioi));
    return value;
}

std::string charging_vector_back(std::string_view of_request, std::string_view term_ioi) {
    std::string icid, others;
    sip::ParameterList parameters(of_request);
    while (const auto parameter = parameters.next()) {
        const auto text = fmt::format("{}={}", parameter->name, parameter->value);
        if (sip::same_token(parameter->name, "icid-value")) icid = text;
        else if (sip::same_token(parameter->name, "icid-generated-at") || sip::same_token(parameter->name, "orig-ioi"))
            others += ";" + text;
    }
    if (icid.empty()) return {};
    if (!term_ioi.empty()) others += fmt::format(";term-ioi={}", token_or_quoted(term_ioi));
    return icid + others;
}

}  // namespace gmgate::daemon
