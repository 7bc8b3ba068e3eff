#include "daemon/reg_event/reg_news.h"

#include <algorithm>

#include "daemon/rules/contact_uri.h"
#include "daemon/rules/identity.h"

namespace gmgate::daemon {

namespace {

bool contradict(std::string_view a, std::string_view b) { return !a.empty() && !b.empty() && !sip::same_token(a, b); }

bool is_ours(const RegInfoContact& contact, const OwnContact& ours) {
    const auto listed = sip::Uri::parse(contact.uri), own = sip::Uri::parse(ours.uri);
    if (!listed || !own || listed->parameter("sos")) return false;
    if (contradict(contact.instance, ours.instance) || contradict(contact.reg_id, ours.reg_id)) return false;
    return uri_fit(*own, *listed, ours.source) != UriFit::other;
}

bool is_of(const RegInfoRegistration& registration, const OwnContact& ours) {
    return std::ranges::any_of(ours.identities, [&](std::string_view identity) {
        return identity == registration.aor || is_same_identity(identity, registration.aor);
    });
}

}  // namespace

OwnContact own_contact(const Registration& registration, const RegisteredIdentity& identity) {
    OwnContact ours{.uri = registration.contact_uri,
                    .instance = registration.key.instance,
                    .reg_id = registration.key.reg_id,
                    .source = std::nullopt,
                    .identities = {}};
    if (registration.tls) ours.source = registration.tls->flow.remote;
    else if (!registration.sets.empty()) ours.source = registration.sets.back()->ue_client();
    if (!identity.aor.empty()) ours.identities.push_back(identity.aor.value);
    for (const Impu& impu : identity.impus) ours.identities.push_back(impu.value);
    return ours;
}

std::optional<ContactNews> news_of(const RegInfo& info, const OwnContact& ours) {
    bool has_ended = false, is_active = false;
    ContactNews news;
    for (const RegInfoRegistration& registration : info.registrations) {
        if (!is_of(registration, ours)) continue;
        if (registration.contacts.empty() && registration.is_terminated) has_ended = true;  // the whole of it
        for (const RegInfoContact& contact : registration.contacts) {
            if (!is_ours(contact, ours)) continue;
            if (!contact.is_active || registration.is_terminated) {
                has_ended = true;
                continue;
            }
            is_active = true;
            if (contact.expires && (!news.expires || *contact.expires < *news.expires)) news.expires = contact.expires;
        }
    }
    if (!has_ended && !is_active) return std::nullopt;
    news.is_terminated = has_ended && !is_active;
    return news;
}

}  // namespace gmgate::daemon
