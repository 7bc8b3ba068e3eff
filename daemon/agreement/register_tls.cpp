// tls: what happens with the core's 401 and 200 (TS 33.203 Annex O, the feature text's two call flows).
#include "base/log.h"
#include "daemon/agreement/contact.h"
#include "daemon/agreement/register_flow.h"
#include "daemon/rules/header_rules.h"
#include "sip/message/digest.h"
#include "sip/message/headers.h"

namespace gmgate::daemon {
namespace {

// What the answer to a challenge will say in Authorization.
AuthorizedAs asked_by(const sip::Message& response) {
    const auto challenge = sip::DigestParams::parse(response.value(sip::HeaderId::www_authenticate));
    if (!challenge) return {};
    return {.realm = std::string(challenge->get("realm").value_or("")),
            .uri = {},
            .algorithm = std::string(challenge->get("algorithm").value_or(""))};
}

}  // namespace

// Security-Server goes into the 401 only where sec-agree runs: in clear with tls chosen, or over TLS with a
// Security-Client (G-16, G-21).
void RegisterFlow::challenge_tls(Exchange& x, const sip::OwnedMessage& response) {
    if (x.access->interface->reject_akav1_over_tls && sip::same_token(asked_by(*response).algorithm, "AKAv1-MD5")) {
        object(x, {403, "aka-over-tls", "AKAv1 over TLS is refused by aka-over-tls (RFC 4169 section 1)"});
        return;
    }
    p_.counters.add(Counter::mechanism_tls);
    if (auto* bound = x.is_bound ? bound_contact(x) : nullptr) bound->tls->challenged_as = asked_by(*response);
    if (x.over == Over::tls && x.client.empty()) {
        pass(x, response, "challenged over TLS, without sec-agree");
        return;
    }
    const auto server = x.sent_security_server.empty() || !x.is_bound
                            ? security_server(x.choice, x.policy, *x.access->interface, {})
                            : x.sent_security_server;  // what this association began with
    TlsAgreement agreement{x.client, server, p_.clock.now() + p_.config.timers.reg_await_auth, x.charge};
    if (!x.is_bound && !p_.tls_agreements.put(x.challenge_key(), std::move(agreement))) {
        object(x, {503, "limit", "too many phones are expected over TLS"});
        return;
    }
    pass(x, response, "challenged; tls chosen", server);
}

// A refresh keeps what it began with; or it has agreed only now.
TlsBinding RegisterFlow::refreshed(const TlsBinding& before, const Exchange& x) {
    TlsBinding binding = before;
    if (x.agrees) {
        binding.security_client = x.client;
        binding.security_verify = x.verify;
    }
    return binding;
}

// Asked again with no await before the binding: what was true when the REGISTER came may have changed while the core
// was asked.
std::optional<Objection> RegisterFlow::check_binding(const Exchange& x) {
    if (!p_.transports.is_open(x.flow().connection))
        return Objection{480, "connection", "the TLS connection ended while the core was asked"};
    for (const auto* other : p_.table.bound_to(x.flow().connection))
        if (other->key.impi != x.impi) {  // C-49
            p_.counters.add(Counter::impi_mismatch);
            return Objection{403, "authorization", "this TLS connection belongs to another user by now"};
        }
    return std::nullopt;
}

// What the phone had before: SAs, when it gave up ipsec-3gpp, and a contact that a REGISTER beside this one has bound
// to the same connection under another spelling: one phone has one registration, and the core's last word is this one.
std::vector<std::unique_ptr<SaSet>> RegisterFlow::give_up_others(Registration& registration, const Exchange& x) {
    std::vector<std::unique_ptr<SaSet>> leaving;
    std::vector<SetNumber> sets;
    for (const auto& set : registration.sets) sets.push_back(set->number);
    for (const auto number : sets) leaving.push_back(p_.table.take_set(registration, number));
    for (const auto* other : p_.table.bound_to(x.flow().connection)) {
        if (other == &registration || is_emergency_contact(other->key) != is_emergency_contact(registration.key))
            continue;
        log::notice("registration-ended", {{"impi", other->key.impi.value},
                                           {"connection", x.flow().connection.value},
                                           {"why", "the phone has registered anew over this connection"}});
        auto ended = p_.table.take(ContactKey{other->key});
        for (auto& set : ended->sets) leaving.push_back(std::move(set));
    }
    return leaving;
}

// SM11: the connection, the IMPI and its identities belong together from now on (B-94). The 200 leaves on this
// connection.
Task<void> RegisterFlow::bind_tls(Exchange& x, const sip::OwnedMessage& response, std::chrono::seconds expires) {
    if (const auto objection = check_binding(x)) {
        object(x, *objection);
        co_return;
    }
    auto& registration = registration_for(x);
    const bool again = registration.tls != nullptr;
    TlsBinding binding{x.flow(), x.client, x.verify};
    const bool is_refresh = again && registration.tls->flow.connection == x.flow().connection;
    if (is_refresh) binding = refreshed(*registration.tls, x);
    const bool is_authenticated = !is_refresh || (x.has_response && binding.challenged_as.is_known());
    if (is_authenticated || !registration.authorized_as->is_known())
        registration.authorized_as = authorized_as(x.credentials.authorization);
    binding.challenged_as = {};
    const auto before = p_.table.bind(registration, std::move(binding));
    p_.transports.keep_open(x.flow().connection, true);
    p_.tls_agreements.erase(x.challenge_key());
    auto leaving = give_up_others(registration, x);
    learn(registration, x, *response, expires);
    p_.counters.add(again ? Counter::reregistered : Counter::registered);
    co_await keep(x.contact);
    pass(x, response, again ? "refreshed over TLS" : "registered over TLS");
    if (before && p_.table.bound_to(before->connection).empty()) p_.transports.close(before->connection, false);
    for (auto& set : leaving) co_await p_.sets.remove(std::move(set));
}

}  // namespace gmgate::daemon
