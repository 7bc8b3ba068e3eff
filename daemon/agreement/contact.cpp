#include "daemon/agreement/contact.h"

#include <algorithm>
#include <optional>

#include "daemon/rules/contact_uri.h"
#include "daemon/rules/identity.h"
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

// The one that a request speaks of: a phone that moved may end its former contact in the same request.
std::optional<sip::NameAddr> spoken_of(const sip::Message& request) {
    const auto contacts = contacts_of(request);
    if (contacts.empty()) return std::nullopt;
    const auto kept = std::ranges::find_if(
        contacts, [&](const auto& contact) { return sip::contact_expires(request, contact) != 0U; });
    return kept == contacts.end() ? contacts.front() : *kept;
}

bool is_emergency(const sip::NameAddr& contact) {
    const auto uri = sip::Uri::parse(contact.uri);
    return uri && uri->parameter("sos");
}

// Both say it, and not the same.
bool contradict(const sip::NameAddr& a, const sip::NameAddr& b, std::string_view name) {
    const auto x = a.parameter(name), y = b.parameter(name);
    return x && y && !sip::same_token(*x, *y);
}

bool may_be_same(const sip::NameAddr& asked, const sip::NameAddr& listed) {
    return is_emergency(asked) == is_emergency(listed) && !contradict(asked, listed, "+sip.instance") &&
           !contradict(asked, listed, "reg-id");
}

// How surely the listed contact is the one asked for; 0: it is not.
int fit(const sip::NameAddr& asked, const sip::NameAddr& listed, const Endpoint& source) {
    if (!may_be_same(asked, listed)) return 0;
    const auto x = sip::Uri::parse(asked.uri), y = sip::Uri::parse(listed.uri);
    const bool names_device = asked.parameter("+sip.instance") && listed.parameter("+sip.instance");
    return (names_device ? 4 : 0) + (x && y ? static_cast<int>(uri_fit(*x, *y, source)) : 0);
}

// It was registered by that name, or implicitly with it.
bool is_or_has(const RegisteredIdentity& one, const Impu& impu) {
    const auto is_it = [&](const Impu& own) { return is_same_identity(own.value, impu.value); };
    return is_it(one.aor) || std::ranges::any_of(one.impus, is_it) || std::ranges::any_of(one.former_names, is_it);
}

constexpr std::size_t kMostNames = 8;

// The names of the entry that it replaces and does not tell itself.
void take_names(RegisteredIdentity& identity, const RegisteredIdentity& before) {
    const auto take = [&](const Impu& name) {
        if (!name.empty() && !is_or_has(identity, name) && identity.former_names.size() < kMostNames)
            identity.former_names.push_back(name);
    };
    take(before.aor);
    for (const Impu& name : before.former_names) take(name);
}

}  // namespace

ContactKey contact_key(const sip::Message& request, const Impi& impi) {
    ContactKey key{impi, "", ""};
    const auto contact = spoken_of(request);
    if (!contact) return key;
    key.instance = contact->parameter("+sip.instance").value_or("");
    key.reg_id = contact->parameter("reg-id").value_or("");
    if (is_emergency(*contact)) key.reg_id.insert(0, kEmergencyRegId);
    return key;
}

bool may_be_same(const ContactKey& a, const ContactKey& b) {
    const auto reg_id = [](const ContactKey& key) {
        return std::string_view(key.reg_id).substr(is_emergency_contact(key) ? kEmergencyRegId.size() : 0);
    };
    const auto agree = [](std::string_view x, std::string_view y) {
        return x.empty() || y.empty() || sip::same_token(x, y);
    };
    return is_emergency_contact(a) == is_emergency_contact(b) && agree(a.instance, b.instance) &&
           agree(reg_id(a), reg_id(b));
}

bool have_same_host(std::string_view a, std::string_view b) {
    const auto x = sip::Uri::parse(a);
    auto y = sip::Uri::parse(b);
    if (!x || !y) return false;
    y->port = x->port;
    return uri_fit(*x, *y, std::nullopt) == UriFit::same;
}

bool contact_is_star(const sip::Message& request) { return request.value(sip::HeaderId::contact) == "*"; }

std::string contact_uri(const sip::Message& request) {
    const auto contact = spoken_of(request);
    return contact ? std::string(contact->uri) : std::string{};
}

Asks asks_for(const sip::Message& request) {
    if (contact_is_star(request)) return Asks::end;
    const auto contact = spoken_of(request);
    if (!contact) return Asks::nothing;
    return sip::contact_expires(request, *contact) == 0U ? Asks::end : Asks::time;
}

bool asks_for_outbound(const sip::Message& request, const ContactKey& contact) {
    const bool has_reg_id = is_emergency_contact(contact) ? contact.reg_id != kEmergencyRegId : !contact.reg_id.empty();
    return !contact.instance.empty() && has_reg_id && sip::via_count(request) == 1;
}

std::chrono::seconds time_asked(const sip::Message& request) {
    const auto contact = spoken_of(request);
    if (!contact) return {};
    const auto asked = sip::contact_expires(request, *contact);
    return asked ? std::chrono::seconds{*asked} : kDefaultExpiry;
}

Grant granted(const sip::Message& response, const sip::Message& request, const Endpoint& source) {
    const auto asked = spoken_of(request);
    if (!asked) return {};
    const auto wish = static_cast<std::uint32_t>(time_asked(request).count());
    const auto listed = contacts_of(response);
    std::pair<bool, int> best{false, 0};
    std::optional<std::uint32_t> time;
    const auto consider = [&](const sip::NameAddr& contact, int how_sure) {
        const auto expires = sip::contact_expires(response, contact).value_or(wish);
        const std::pair<bool, int> rank{expires != 0, how_sure};
        if (how_sure == 0 || (time && rank <= best)) return;
        best = rank;
        time = expires;
    };
    for (const auto& contact : listed) consider(contact, fit(*asked, contact, source));
    // One that a registrar has rewritten beyond recognition, when it names no other.
    if (!time && listed.size() == 1 && may_be_same(*asked, listed.front()) &&
        (asked->parameter("+sip.instance") || !listed.front().parameter("+sip.instance")) &&
        sip::contact_expires(response, listed.front()) != 0U)
        consider(listed.front(), 1);
    return {std::chrono::seconds{time.value_or(wish)}, time.has_value()};
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

Impu to_identity(const sip::Message& request) {
    const auto to = sip::NameAddr::parse(request.value(sip::HeaderId::to));
    return to ? Impu{std::string(to->uri)} : Impu{};
}

std::optional<RegisteredIdentity> put_identity(Registration& registration, RegisteredIdentity identity) {
    auto& known = registration.identities;
    const auto is_meant = [&](const RegisteredIdentity& one) {
        return is_or_has(one, identity.aor) ||
               std::ranges::any_of(one.impus, [&](const Impu& impu) { return is_or_has(identity, impu); });
    };
    const auto place = std::ranges::find_if(known, is_meant) - known.begin();
    for (const auto& before : known)
        if (is_meant(before)) take_names(identity, before);
    std::erase_if(known, is_meant);
    std::optional<RegisteredIdentity> displaced;
    if (known.size() >= kMostIdentities) {
        const auto first = std::ranges::min_element(known, {}, &RegisteredIdentity::expires);
        displaced = std::move(*first);
        known.erase(first);
    }
    known.insert(std::min(known.begin() + place, known.end()), std::move(identity));
    registration.summarise();
    return displaced;
}

void drop_identity(Registration& registration, const Impu& to) {
    auto& known = registration.identities;
    if (std::erase_if(known, [&](const auto& one) { return is_or_has(one, to); }) == 0)
        std::erase_if(known, [](const auto& one) { return one.aor.empty(); });
    registration.summarise();
}

sip::Flow unprotected_reply_flow(const sip::Message& request, const sip::Flow& flow) {
    auto reply = flow;
    const auto via = sip::top_via(request);
    if (!via || via->parameter("rport")) return reply;
    reply.remote.port = via->port.value != 0 ? via->port : Port{5060};
    return reply;
}

}  // namespace gmgate::daemon
