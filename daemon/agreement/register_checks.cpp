// What may stop a REGISTER before the core sees it.
#include <algorithm>

#include <fmt/format.h>

#include "daemon/agreement/register_flow.h"
#include "daemon/rules/from_ue_checks.h"
#include "sip/message/headers.h"

namespace gmgate::daemon {

std::optional<Objection> RegisterFlow::check(Exchange& x) {
    const auto& interface = *x.access->interface;
    std::optional<Objection> objection;
    if (interface.sec_agree_feature && interface.require_both &&
        !(x.client.empty() && x.verify.empty())) {  // G-4, A-10
        const bool both = sip::has_option_tag(x.request(), sip::HeaderId::require, "sec-agree") &&
                          sip::has_option_tag(x.request(), sip::HeaderId::proxy_require, "sec-agree");
        if (!both) return Objection{494, "sec-agree", "sec-agree must stand in Require and in Proxy-Require"};
    }
    if (x.over == Over::unprotected) objection = check_unprotected(x);
    else if (x.over == Over::tls) objection = x.is_bound ? check_bound_tls(x) : check_unbound_tls(x);
    else objection = check_protected(x);
    return objection ? objection : check_limits(x);
}

// RFC 3261 §16.3 step 5: what the phone requires of proxies and no proxy here knows. Whether sec-agree is known depends
// on how the request came.
std::optional<Objection> RegisterFlow::check_proxy_require(const Exchange& x) const {
    auto unknown = unknown_proxy_options(x.request(), x.access->interface->refuse_mediasec);  // G-30
    if (unknown.empty()) return std::nullopt;
    const auto why = fmt::format("Proxy-Require names {}, which this interface refuses", unknown);
    return Objection{420, "proxy-require", why, std::move(unknown)};
}

// ----------------------------------------------------------------------------------------------------------------
// unprotected

std::optional<Objection> RegisterFlow::check_unprotected(Exchange& x) {
    const auto& interface = *x.access->interface;
    const auto& request = x.request();
    if (!interface.serves_clear_ports()) {
        // with the feature disabled sec-agree is an option like any other that a proxy does not support.
        if (sip::has_option_tag(request, sip::HeaderId::proxy_require, "sec-agree"))
            return Objection{420, "sec-agree", "sec-agree-feature is disabled on this interface", "sec-agree"};
        // TS 24.229 §5.2.6: without SAs, TLS or an IP association a phone gets no service, so it is not registered.
        return Objection{403, "feature", std::string(kNoClearService)};
    }
    if (x.client.empty()) return check_without_offer(x);
    auto choice = choose(x.client, x.policy);
    if (!choice) {
        p_.counters.add(Counter::offer_unusable);
        return Objection{494, "security-client", choice.error().why};  // B-45, G-14
    }
    x.choice = std::move(*choice);
    x.record.rule = x.choice.rule;
    x.record.choice = to_string(x.choice.mechanism);
    if (x.choice.mechanism != MechanismKind::ipsec_3gpp) return std::nullopt;
    x.integrity_protected = integrity_protected(false, false, x.has_response);  // "no": AKA was chosen (G-3, B-114)
    x.record.choice += fmt::format(" {}/{}", to_string(x.choice.algorithms.alg), to_string(x.choice.algorithms.ealg));
    if (x.choice.mode == xfrm::Mode::udp_enc_tun) {
        x.record.choice += " mod=UDP-enc-tun";
        if (x.flow().transport == sip::Transport::udp)
            x.transaction->set_reply_flow(x.flow());  // whatever its Via says: the NAT knows this way back alone
        return std::nullopt;
    }
    auto objection = check_address(x);
    if (objection) p_.counters.add(Counter::via_mismatch);
    return objection;
}

// B-80, B-111: a phone behind NAT is one whose packets come from another address than its Via says. Without the offer,
// and where the profile has no such mode, transport mode remains, and check_address() says why that cannot be. B-84:
// over SAs in this mode, new ones are, too.
xfrm::Mode RegisterFlow::mode_for(const Exchange& x) const {
    if (x.carried_by) return x.carried_by->mode;
    const bool is_possible = x.over == Over::unprotected && x.access->profile && x.access->profile->nat.is_on;
    if (!is_possible || !offers_udp_enc_tun(x.client)) return xfrm::Mode::transport;
    const auto seen = check_via(x.request(), x.flow());
    return seen && seen->status == 403 ? xfrm::Mode::udp_enc_tun : xfrm::Mode::transport;
}

// B-81: transport-mode ESP cannot pass a NAT; the specification drops the message, we say why.
std::optional<Objection> RegisterFlow::check_address(const Exchange& x) const {
    auto objection = check_via(x.request(), x.flow());
    if (objection && objection->status == 403)
        objection->why += x.access->profile && x.access->profile->nat.is_on
                              ? ", and the phone does not offer mod=UDP-enc-tun"
                              : ", and nat-traversal is off here";
    return objection;
}

std::optional<Objection> RegisterFlow::check_without_offer(Exchange& x) {
    const auto& interface = *x.access->interface;
    if (interface.sec_agree_feature && interface.server_initiated) {  // RFC 3329 §2.3.2
        if (sip::via_count(x.request()) != 1)
            return Objection{502, "via", "server-initiated agreement needs exactly one Via"};
        const bool knows = sip::has_option_tag(x.request(), sip::HeaderId::supported, "sec-agree");
        return Objection{knows ? 494 : 421, "sec-agree", "this interface asks for a security agreement first"};
    }
    if (interface.on_no_security_client() == NoSecurityClient::reject)
        return Objection{421, "security-client",
                         "Security-Client is missing and this interface demands an agreement"};  // G-15, C-25
    p_.counters.add(Counter::mechanism_none);
    x.record.choice = "none";
    x.record.rule = "no Security-Client: forwarded without protection, as no-security-client allows";
    return std::nullopt;
}

// ------------------------------------------------------------------------------------------------------------------
// over SAs

std::optional<Objection> RegisterFlow::check_protected(Exchange& x) {
    const auto owner = p_.table.find_set(x.set);
    const auto& interface = *x.access->interface;
    x.integrity_protected = integrity_protected(x.over == Over::temporary, x.over == Over::established, x.has_response);
    const auto& expected = owner.challenge ? owner.challenge->impi : owner.registration->key.impi;
    const sip::CompareOptions options{.ignore_q = interface.ignore_q};
    if (auto objection = check_identity(x.credentials.authorization, expected)) {
        p_.counters.add(Counter::impi_mismatch);
        x.sender = expected;
        return objection;
    }
    if (owner.registration)
        if (auto objection = check_authorization(x.credentials.authorization, owner.registration->authorized_as, {},
                                                 interface.refresh_authorization)) {
            p_.counters.add(Counter::impi_mismatch);
            return objection;
        }
    if (auto objection = check_via(x.request(), x.flow())) {
        p_.counters.add(Counter::via_mismatch);
        return objection;
    }
    auto objection = x.over == Over::temporary
                         ? check_answer(x.verify, x.client, *owner.set, options)
                         : check_refresh(x.verify, x.client, *owner.set, interface.strict_refresh, options);
    if (objection) {
        p_.counters.add(objection->check == "security-client" ? Counter::client_mismatch : Counter::verify_mismatch);
        return objection;
    }
    x.record.checks.push_back({"security-verify", true, "equals the Security-Server sent"});
    if (x.over == Over::temporary) {
        x.choice.mechanism = MechanismKind::ipsec_3gpp;
        x.choice.algorithms = owner.set->parameters.algorithms;
        return std::nullopt;
    }
    x.choice.mechanism = MechanismKind::ipsec_3gpp;
    if (x.client.empty()) return std::nullopt;  // refused only if the core challenges it
    // B-113: the mechanism stays, also when a reload has changed what newcomers get.
    auto kept = x.policy;
    kept.ipsec = true;
    kept.tls = false;
    auto choice = choose(x.client, kept);
    if (!choice) return Objection{494, "security-client", choice.error().why};
    x.choice = std::move(*choice);
    x.record.rule = x.choice.rule;
    x.record.choice =
        fmt::format("ipsec-3gpp {}/{}", to_string(x.choice.algorithms.alg), to_string(x.choice.algorithms.ealg));
    return std::nullopt;
}

std::optional<Objection> RegisterFlow::check_limits(const Exchange& x) const {
    const bool is_new = x.over == Over::unprotected || (x.over == Over::tls && !x.is_bound && !x.has_response);
    if (is_new && p_.operating && p_.operating->draining)
        return Objection{503, "draining", "the gateway is being drained: no new registrations here"};
    if (x.over != Over::unprotected || x.choice.mechanism != MechanismKind::ipsec_3gpp) return std::nullopt;
    const auto& limits = p_.config.limits;
    if (p_.table.challenge_count() >= limits.challenges && !first_to_give_way())
        return Objection{503, "limit", "too many challenges are waiting for an answer"};
    const bool is_known = !p_.table.find_by_impi(x.impi).empty();  // rebooted: it takes the place that it has
    if (!is_known && p_.table.registration_count() >= limits.registrations)
        return Objection{503, "limit", "the limit of registrations is reached"};
    return std::nullopt;
}

// ----------------------------------------------------------------------------------------------------
// TLS

// Several contacts of the user may share the connection: each is judged by what it began with.
Registration* RegisterFlow::bound_contact(const Exchange& x) {
    const auto bound = p_.table.bound_to(x.flow().connection);
    const auto own = std::ranges::find_if(bound, [&](const auto* one) { return one->key == x.contact; });
    return own == bound.end() ? p_.table.owner_of(x.flow()).registration : *own;
}

// SEED's refresh check, literally: presence and change of both headers, and Authorization (G-6, G-8, C-48).
std::optional<Objection> RegisterFlow::check_bound_tls(Exchange& x) {
    const auto& registration = *bound_contact(x);
    if (x.names_impi() && x.impi != registration.key.impi) {  // C-49: one TLS connection, one IMPI
        p_.counters.add(Counter::impi_mismatch);
        x.sender = registration.key.impi;
        return Objection{403, "authorization",
                         "Authorization names another private identity than the one of this TLS connection"};
    }
    x.choice = {MechanismKind::tls, {}, {}, "the connection is bound to this user"};
    x.record.choice = "tls";
    // Without Authorization the phone does not claim to be the bound user: forwarded without an indicator (B-97).
    if (x.names_impi()) {
        x.integrity_protected = "tls-yes";
        if (auto objection =
                check_authorization(x.credentials.authorization, registration.authorized_as,
                                    registration.tls->challenged_as, x.access->interface->refresh_authorization)) {
            p_.counters.add(Counter::impi_mismatch);
            return objection;
        }
    }
    if (!x.access->interface->sec_agree_feature) return std::nullopt;  // both headers mean nothing here
    if (registration.key != x.contact)  // the other kind, beginning here: it may have agreed in clear (C-81)
        if (const auto* agreement = p_.tls_agreements.find(x.challenge_key())) return check_agreed_lists(x, *agreement);
    const bool has_agreement = !registration.tls->security_verify.empty();
    return has_agreement ? check_bound_lists(x, *registration.tls) : check_without_agreement(x, *registration.tls);
}

// "If the Sec_Agree occurred during Registration, it verifies for the presence or change".
std::optional<Objection> RegisterFlow::check_bound_lists(Exchange& x, const TlsBinding& binding) {
    const sip::CompareOptions options{.ignore_q = x.access->interface->ignore_q};
    x.sent_security_server = binding.security_verify.to_string();  // the 494 says what was compared
    if (const auto what = sip::difference(binding.security_verify, x.verify, options)) {
        p_.counters.add(Counter::verify_mismatch);
        return Objection{494, "security-verify", "Security-Verify differs from the one of this association: " + *what};
    }
    if (const auto what = sip::difference(binding.security_client, x.client, options)) {
        p_.counters.add(Counter::client_mismatch);
        return Objection{494, "security-client", "Security-Client differs from the one of this association: " + *what};
    }
    return std::nullopt;
}

// It did not occur. A Security-Verify mirrors nothing and is stripped (G-28). A Security-Client that was not there
// before asks for an agreement: the 494 tells our list, and who mirrors that has agreed.
std::optional<Objection> RegisterFlow::check_without_agreement(Exchange& x, const TlsBinding& binding) {
    const sip::CompareOptions options{.ignore_q = x.access->interface->ignore_q};
    if (x.client.empty() || !sip::difference(binding.security_client, x.client, options)) return std::nullopt;
    x.sent_security_server = supported_mechanisms(x.policy);
    const auto sent = sip::SecurityList::parse(x.sent_security_server, true);
    x.agrees = sent && !sent->empty() && !sip::difference(*sent, x.verify, options);
    if (x.agrees) return std::nullopt;
    p_.counters.add(Counter::client_mismatch);
    return Objection{494, "security-client", "Security-Client was not in the REGISTER that bound this connection"};
}

// The first REGISTERs over a new connection: of an agreement made in clear (C-47), or TLS from the start (B-95, G-16).
std::optional<Objection> RegisterFlow::check_unbound_tls(Exchange& x) {
    const auto* agreement = p_.tls_agreements.find(x.challenge_key());
    x.choice = {MechanismKind::tls, {}, {}, "the REGISTER came over TLS"};
    x.record.choice = "tls";
    x.record.rule = x.choice.rule;
    x.integrity_protected = integrity_over_tls(x);
    if (!x.access->interface->sec_agree_feature &&
        sip::has_option_tag(x.request(), sip::HeaderId::proxy_require, "sec-agree"))
        return Objection{420, "sec-agree", "sec-agree-feature is disabled on this interface", "sec-agree"};
    if (!x.has_response) {
        if (auto objection = agreement ? std::nullopt : check_after_refusal(x)) return objection;
        if (x.client.empty())
            p_.tls_agreements.erase(x.challenge_key());  // starts anew, without sec-agree (feature text, second flow)
        else if (!choose(x.client, x.policy))
            x.client = {};  // nothing in common: goes on as TLS from the start (G-14, B-112)
        return std::nullopt;
    }
    return agreement ? check_agreed_lists(x, *agreement) : check_after_refusal(x);
}

std::optional<Objection> RegisterFlow::check_agreed_lists(Exchange& x, const TlsAgreement& agreement) {
    x.sent_security_server = agreement.security_server;  // the 494 says what was compared
    if (x.verify.empty()) return Objection{494, "security-verify", "Security-Verify is missing"};
    const auto sent = sip::SecurityList::parse(agreement.security_server, true);
    if (const auto what = sip::difference(*sent, x.verify, {.ignore_q = x.access->interface->ignore_q})) {
        p_.counters.add(Counter::verify_mismatch);
        return Objection{494, "security-verify", "Security-Verify differs from the Security-Server sent: " + *what};
    }
    if (x.client.empty()) return std::nullopt;  // G-5: for tls it may be left out
    if (const auto what = sip::difference(agreement.security_client, x.client)) {
        p_.counters.add(Counter::client_mismatch);
        return Objection{494, "security-client", "Security-Client differs from the first one: " + *what};
    }
    return std::nullopt;
}

// RFC 3329 §2.3.1: a phone that was refused in clear mirrors the list of the refusal; somebody in between may have
// shortened it. Without a refusal, or without Security-Verify, nothing is mirrored (G-28).
std::optional<Objection> RegisterFlow::check_after_refusal(Exchange& x) {
    const auto* told = p_.tls_agreements.find_refusal(x.challenge_key());
    if (!told || x.verify.empty()) return std::nullopt;
    x.sent_security_server = *told;
    const auto sent = sip::SecurityList::parse(*told, true);
    if (!sent) return std::nullopt;
    const auto what = sip::difference(*sent, x.verify, {.ignore_q = x.access->interface->ignore_q});
    if (!what) return std::nullopt;
    p_.counters.add(Counter::verify_mismatch);
    return Objection{494, "security-verify",
                     "Security-Verify differs from the Security-Server sent in clear: " + *what};
}

// Table C.3 over a TLS connection that is not bound yet.
std::optional<std::string_view> RegisterFlow::integrity_over_tls(const Exchange& x) const {
    if (x.access->interface->tls_connected && x.client.empty()) {
        const auto algorithm = x.credentials.authorization.get("algorithm").value_or("");
        if (sip::same_token(algorithm, "AKAv2-SHA-256")) return "tls-connected";
    }
    if (x.has_response) return "tls-pending";
    return std::nullopt;
}

}  // namespace gmgate::daemon
