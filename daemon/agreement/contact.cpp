#include "daemon/agreement/contact.h"

#include <algorithm>
#include <optional>

#include "sip/message/headers.h"

namespace gmgate::daemon {
namespace {

constexpr std::chrono::seconds kDefaultExpiry{
    3600};  // RFC 3261 §10.2.1.1 leaves it to the registrar; only for a silent 200

std::vector<sip::NameAddr> contacts_of(const sip::Message& message) {
    std::vector<sip::NameAddr> contacts;
    message.for_each(sip::HeaderId::contact, [&](const sip::HeaderField& field) {
        sip::Split elements(field.value, ',');
        while (const auto element = elements.next())
            if (const auto contact = sip::NameAddr::parse(*element)) contacts.push_back(*contact);
    });
    return contacts;
}

// Same user, host and port: how the registrar's answer names the contact that was asked for.
bool same_contact(const sip::NameAddr& a, const sip::NameAddr& b) {
    const auto x = sip::Uri::parse(a.uri), y = sip::Uri::parse(b.uri);
    return x && y && x->user == y->user && sip::same_token(x->host, y->host) && x->port == y->port;
}

}  // namespace

ContactKey contact_key(const sip::Message& request, const Impi& impi) {
    ContactKey key{impi, "", ""};
    const auto contacts = contacts_of(request);
    if (contacts.empty()) return key;
    key.instance = contacts.front().parameter("+sip.instance").value_or("");
    key.reg_id = contacts.front().parameter("reg-id").value_or("");
    const auto uri = sip::Uri::parse(contacts.front().uri);
    if (uri && uri->parameter("sos")) key.reg_id = "sos:" + key.reg_id;
    return key;
}

bool contact_is_star(const sip::Message& request) { return request.value(sip::HeaderId::contact) == "*"; }

std::string contact_uri(const sip::Message& request) {
    const auto contacts = contacts_of(request);
    return contacts.empty() ? std::string{} : std::string(contacts.front().uri);
}

std::chrono::seconds granted_expiry(const sip::Message& response, const sip::Message& request) {
    const auto asked = contacts_of(request);
    const auto granted = contacts_of(response);
    if (contact_is_star(request)) return std::chrono::seconds{0};
    if (!asked.empty() && sip::contact_expires(request, asked.front()) == 0U) return std::chrono::seconds{0};
    if (asked.empty() || granted.empty()) return std::chrono::seconds{0};
    auto at = std::ranges::find_if(granted, [&](const auto& contact) { return same_contact(contact, asked.front()); });
    if (at == granted.end() && granted.size() == 1) at = granted.begin();
    if (at == granted.end()) return std::chrono::seconds{0};
    if (const auto expires = sip::contact_expires(response, *at)) return std::chrono::seconds{*expires};
    return std::chrono::seconds{
        sip::contact_expires(request, asked.front()).value_or(static_cast<std::uint32_t>(kDefaultExpiry.count()))};
}

std::vector<std::string> route_values(const sip::Message& message, sip::HeaderId id) {
    std::vector<std::string> values;
    message.for_each(id, [&](const sip::HeaderField& field) {
        sip::Split elements(field.value, ',');
        while (const auto element = elements.next())
            if (!element->empty()) values.emplace_back(*element);
    });
    return values;
}

std::vector<Impu> associated_identities(const sip::Message& response, const sip::Message& request) {
    std::vector<Impu> identities;
    for (const auto& value : route_values(response, sip::HeaderId::p_associated_uri))
        if (const auto address = sip::NameAddr::parse(value)) identities.emplace_back(std::string(address->uri));
    if (identities.empty())
        if (const auto to = sip::NameAddr::parse(request.value(sip::HeaderId::to)))
            identities.emplace_back(std::string(to->uri));
    return identities;
}

sip::Flow unprotected_reply_flow(const sip::Message& request, const sip::Flow& flow) {
    auto reply = flow;
    const auto via = sip::top_via(request);
    if (!via || via->parameter("rport")) return reply;
    reply.remote.port = via->port.value != 0 ? via->port : Port{5060};
    return reply;
}

}  // namespace gmgate::daemon
