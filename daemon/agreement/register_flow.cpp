#include "daemon/agreement/register_flow.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/log.h"
#include "base/random.h"
#include "daemon/agreement/contact.h"
#include "daemon/proxy/header_rules.h"
#include "sip/edit.h"
#include "sip/headers.h"

namespace gmgate::daemon {
namespace {

constexpr std::size_t kTokenOctets = 16;

std::string_view reason_phrase(int status) {
    switch (status) {
        case 400: return "Bad Request";
        case 403: return "Forbidden";
        case 420: return "Bad Extension";
        case 421: return "Extension Required";
        case 480: return "Temporarily Unavailable";
        case 483: return "Too Many Hops";
        case 494: return "Security Agreement Required";
        case 500: return "Server Internal Error";
        case 502: return "Bad Gateway";
        case 503: return "Service Unavailable";
        case 504: return "Server Time-out";
        default: return "Error";
    }
}

Counter counter_of(int status) {
    switch (status) {
        case 403: return Counter::reject_403;
        case 420: return Counter::reject_420;
        case 421: return Counter::reject_421;
        case 494: return Counter::reject_494;
        default: return status >= 500 ? Counter::reject_5xx : Counter::reject_400;
    }
}

std::string describe(const xfrm::SetParameters& s) {
    return fmt::format("spi-uc={} spi-us={} spi-pc={} spi-ps={} port-uc={} port-us={} port-pc={} port-ps={}", s.spi_uc.value, s.spi_us.value, s.spi_pc.value,
                       s.spi_ps.value, s.port_uc.value, s.port_us.value, s.port_pc.value, s.port_ps.value);
}

}  // namespace

// ---------------------------------------------------------------------------------------------------------------- the whole way

Task<void> RegisterFlow::handle(std::shared_ptr<sip::ServerTransaction> transaction) {
    Exchange x;
    x.transaction = std::move(transaction);
    if (!arrive(x)) co_return;  // over no or the wrong set: dropped and counted (B-23)

    auto objection = read(x);
    if (!objection) objection = x.over == Over::unprotected ? check_unprotected(x) : check_protected(x);
    if (!objection) objection = check_limits(x);
    if (objection) {
        object(x, *objection);
        p_.trace.add(std::move(x.record));
        co_return;
    }

    auto response = co_await ask_core(x);  // C.2, C.3: stripped, marked, forwarded
    if (!response) {
        p_.counters.add(Counter::core_unreachable);
        object(x, {504, "core", "the core gives no answer: " + response.error().text});  // C-18
    } else if ((*response)->status() == 401 || (*response)->status() == 407) {
        co_await challenge(x, std::move(*response));  // C.5: the SAs exist before the 401 leaves
    } else if ((*response)->status() < 300) {
        co_await accept(x, std::move(*response));  // C.6
    } else {
        decline(x, *response);  // B-41
    }
    p_.trace.add(std::move(x.record));
}

// ---------------------------------------------------------------------------------------------------------- arrival and reading

// Over what did it come? The kernel says so by the mark of the inbound SA, never the message.
bool RegisterFlow::arrive(Exchange& x) {
    const auto& flow = x.flow();
    x.access = p_.accesses.find(flow.local);
    if (!x.access) return false;
    x.record.time = p_.clock.wall();
    x.record.ue = fmt::format("{}/{}", flow.remote.to_string(), sip::to_string(flow.transport));
    x.record.realm_id = x.access->interface->realm_id;
    x.record.over = "unprotected";
    if (p_.accesses.is_protected(flow.local)) {
        const auto owner = p_.table.owner_of(flow);
        if (!owner.set || (owner.challenge && owner.challenge->finished)) {
            p_.counters.add(Counter::wrong_sa);
            return false;
        }
        x.over = owner.challenge ? Over::temporary : Over::established;
        x.set = owner.set->number;
        x.carried_by = owner.set->parameters;
        x.sent_security_server = owner.set->security_server;
        x.record.over = fmt::format("{} set {}", to_string(owner.set->state), x.set.value);
        if (flow.transport == sip::Transport::udp) x.transaction->set_reply_flow(SaSets::udp_flow(*owner.set));  // B-15, B-39
    } else if (flow.transport == sip::Transport::udp) {
        x.transaction->set_reply_flow(unprotected_reply_flow(x.request(), flow));  // RFC 3261 §18.2.2, RFC 3581
    }
    p_.counters.add(x.over == Over::unprotected ? Counter::register_rx_unprotected
                    : x.over == Over::temporary ? Counter::register_rx_temporary
                                                : Counter::register_rx_established);
    return true;
}

std::optional<Objection> RegisterFlow::read(Exchange& x) {
    const auto& request = x.request();
    x.impi = impi_of(request);
    x.record.impi = x.impi;
    if (x.impi.empty()) return Objection{400, "to", "To holds no usable URI"};
    x.contact = contact_key(request, x.impi);
    const auto credentials = sip::credentials_of(request);
    x.has_response = credentials && credentials->has_response();
    auto client = sip::SecurityList::from(request, sip::HeaderId::security_client);
    if (!client) return Objection{400, "security-client", client.error().text};
    auto verify = sip::SecurityList::from(request, sip::HeaderId::security_verify);
    if (!verify) return Objection{400, "security-verify", verify.error().text};
    x.client = std::move(*client);
    x.verify = std::move(*verify);
    x.record.offer = x.client.to_string();
    const auto& interface = *x.access->interface;
    x.policy = Policy::of(interface, x.access->profile);
    x.record.policy = fmt::format("sec-agree {} {}", interface.sec_agree_feature ? "enabled" : "disabled", to_string(interface.sec_agree_pref));
    if (interface.refuse_mediasec && sip::has_option_tag(request, sip::HeaderId::proxy_require, "mediasec"))
        return Objection{420, "mediasec", "Proxy-Require names mediasec, which this interface refuses"};  // G-30
    return std::nullopt;
}

// --------------------------------------------------------------------------------------------------------------------- checks

std::optional<Objection> RegisterFlow::check_unprotected(Exchange& x) {
    const auto& interface = *x.access->interface;
    const auto& request = x.request();
    const bool in_require = sip::has_option_tag(request, sip::HeaderId::require, "sec-agree");
    const bool in_proxy_require = sip::has_option_tag(request, sip::HeaderId::proxy_require, "sec-agree");
    if (!interface.sec_agree_feature && !interface.ims_aka_feature) {
        // with the feature disabled sec-agree is an option like any other that a proxy does not support.
        if (in_proxy_require) return Objection{420, "sec-agree", "sec-agree-feature is disabled on this interface"};
        p_.counters.add(Counter::mechanism_none);
        x.record.choice = "none";
        return std::nullopt;
    }
    if (x.client.empty()) return check_without_offer(x);
    if (interface.require_both && !(in_require && in_proxy_require))  // G-4
        return Objection{494, "sec-agree", "sec-agree must stand in Require and in Proxy-Require"};
    auto choice = choose(x.client, x.policy);
    if (!choice) {
        p_.counters.add(Counter::offer_unusable);
        return Objection{494, "security-client", choice.error().why};  // B-45, G-14
    }
    x.choice = std::move(*choice);
    x.record.rule = x.choice.rule;
    x.record.choice = to_string(x.choice.mechanism);
    if (x.choice.mechanism != MechanismKind::ipsec_3gpp) return std::nullopt;
    x.record.choice += fmt::format(" {}/{}", to_string(x.choice.algorithms.alg), to_string(x.choice.algorithms.ealg));
    // B-81: transport-mode ESP cannot pass a NAT; the specification drops the message, we say why.
    auto objection = check_via(request, x.flow());
    if (objection) p_.counters.add(Counter::via_mismatch);
    return objection;
}

std::optional<Objection> RegisterFlow::check_without_offer(Exchange& x) {
    const auto& interface = *x.access->interface;
    if (interface.sec_agree_feature && interface.server_initiated) {  // RFC 3329 §2.3.2
        if (sip::via_count(x.request()) != 1) return Objection{502, "via", "server-initiated agreement needs exactly one Via"};
        const bool knows = sip::has_option_tag(x.request(), sip::HeaderId::supported, "sec-agree");
        return Objection{knows ? 494 : 421, "sec-agree", "this interface asks for a security agreement first"};
    }
    if (interface.on_no_security_client() == NoSecurityClient::reject)
        return Objection{421, "security-client", "Security-Client is missing and this interface demands an agreement"};  // G-15, C-25
    p_.counters.add(Counter::mechanism_none);
    x.record.choice = "none";
    x.record.rule = "no Security-Client: forwarded without protection, as no-security-client allows";
    return std::nullopt;
}

std::optional<Objection> RegisterFlow::check_protected(Exchange& x) {
    const auto owner = p_.table.find_set(x.set);
    const auto& interface = *x.access->interface;
    const auto& expected = owner.challenge ? owner.challenge->impi : owner.registration->key.impi;
    const sip::CompareOptions options{.ignore_q = interface.ignore_q};
    if (auto objection = check_identity(x.request(), expected)) {
        p_.counters.add(Counter::impi_mismatch);
        return objection;
    }
    if (auto objection = check_via(x.request(), x.flow())) {
        p_.counters.add(Counter::via_mismatch);
        return objection;
    }
    auto objection = x.over == Over::temporary ? check_answer(x.verify, x.client, *owner.set, options)
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
    auto choice = choose(x.client, x.policy);
    if (!choice || choice->mechanism != MechanismKind::ipsec_3gpp)  // B-113: the mechanism stays
        return Objection{494, "security-client", choice ? "ipsec-3gpp is no longer offered" : choice.error().why};
    x.choice = std::move(*choice);
    x.record.rule = x.choice.rule;
    x.record.choice = fmt::format("ipsec-3gpp {}/{}", to_string(x.choice.algorithms.alg), to_string(x.choice.algorithms.ealg));
    return std::nullopt;
}

std::optional<Objection> RegisterFlow::check_limits(const Exchange& x) const {
    if (x.over != Over::unprotected || x.choice.mechanism != MechanismKind::ipsec_3gpp) return std::nullopt;
    const auto& limits = p_.config.limits;
    const auto& ue = x.flow().remote.address;
    if (p_.table.challenge_count() >= limits.challenges) return Objection{503, "limit", "too many challenges are waiting for an answer"};
    if (p_.table.challenges_at(ue) >= limits.challenges_per_address) return Objection{503, "limit", "too many challenges for this UE address"};
    if (p_.table.registration_count() >= limits.registrations) return Objection{503, "limit", "the limit of registrations is reached"};
    return std::nullopt;
}

// --------------------------------------------------------------------------------------------------------------- to the core

Task<Result<sip::OwnedMessage>> RegisterFlow::ask_core(Exchange& x) {
    if (const auto* known = p_.table.find(x.contact)) x.token = known->token;
    else if (const auto* waiting = p_.table.find_challenge(x.impi, x.flow().remote.address)) x.token = waiting->token;
    else x.token = random_hex(kTokenOctets);

    const auto transport = p_.core.transport_for(x.request().bytes().size() + 512);
    RegisterToCore rules;
    rules.received = x.flow();
    rules.transport = transport;
    rules.via_host = p_.core.via_host();
    rules.branch = sip::Transactions::new_branch();
    rules.path_uri = fmt::format("sip:{}@{}{};lr", x.token, p_.config.core.listen.to_string(), p_.config.core.transport == CoreTransport::tcp ? ";transport=tcp" : "");
    rules.visited_network_id = p_.config.core.visited_network_id;
    rules.orig_ioi = p_.config.core.orig_ioi;
    rules.own_hosts = own_hosts_;
    rules.bare_integrity_protected = x.access->interface->bare_integrity_protected;
    if (x.choice.mechanism == MechanismKind::ipsec_3gpp)  // G-3: tls and none carry no indicator here
        rules.integrity_protected = integrity_protected(x.over == Over::temporary, x.over == Over::established, x.has_response);
    x.record.integrity_protected = rules.integrity_protected.value_or("absent");

    auto forwarded = register_to_core(x.request(), rules);
    if (!forwarded) co_return failure(Reaction::reject, "Max-Forwards is used up");
    auto sent = co_await p_.core.send(std::move(*forwarded), transport);
    if (!sent) co_return std::unexpected(sent.error());
    for (;;) {
        auto response = co_await (*sent)->next();
        if (!response) co_return std::unexpected(response.error());
        if ((*response)->status() < 200) continue;
        x.record.core_status = (*response)->status();
        co_return std::move(*response);
    }
}

// -------------------------------------------------------------------------------------------------- 401: the SAs, then the answer

Task<void> RegisterFlow::challenge(Exchange& x, sip::OwnedMessage response) {
    auto keys = keys_of(*response);  // taken out here, overwritten below (C-31)
    if (x.over == Over::temporary) {
        // A challenge to the answer of a challenge: its UE SPIs are in use by this very set, so no new one can stand beside it. The UE
        // gets no Security-Server, gives up and starts again (C-37).
        answer(x, register_response_to_ue(*response, std::nullopt), (*response).status(), "challenged again over the temporary set: the phone starts anew");
        finish_challenge(x);
    } else if (x.choice.mechanism == MechanismKind::tls) {
        answer(x, register_response_to_ue(*response, security_server(x.choice, x.policy, *x.access->interface, {})), (*response).status(), "tls chosen");
    } else if (x.choice.mechanism == MechanismKind::none) {
        answer(x, register_response_to_ue(*response, std::nullopt), (*response).status(), "no agreement asked for");
    } else if (!keys.present) {
        p_.counters.add(Counter::ck_ik_missing);
        const bool has_tls = x.over == Over::unprotected && x.policy.tls && std::ranges::any_of(x.client.mechanisms(), [](const auto& m) { return m.is("tls"); });
        if (has_tls) {  // C-35: a digest user, then
            x.choice.mechanism = MechanismKind::tls;
            answer(x, register_response_to_ue(*response, security_server(x.choice, x.policy, *x.access->interface, {})), (*response).status(), "no ck and ik from the core, tls offered");
        } else {
            object(x, {504, "ck-ik", "the core's 401 has no ck and ik, so no SA can be set up"});
        }
    } else if (x.over == Over::established && x.client.empty()) {
        object(x, {494, "security-client", "the core challenges, but the phone offered no new Security-Client"});
    } else {
        co_await install_and_challenge(x, std::move(response), std::move(keys));
        co_return;
    }
    response.wipe();
}

Task<void> RegisterFlow::install_and_challenge(Exchange& x, sip::OwnedMessage response, ChallengeKeys keys) {
    const auto ue = x.flow().remote.address;
    const auto guard = co_await address_lock_.acquire(ue);

    // B-43, C-31: a new challenge ends the one before it of this (IMPI, UE address); its SPIs may be the same.
    if (auto before = p_.table.take_challenge(x.impi, ue)) co_await p_.sets.remove(std::move(before->set));

    SetWish wish;
    wish.ue = ue;
    wish.gateway = x.access->address;
    wish.port_uc = *x.choice.offer.port_c;
    wish.port_us = *x.choice.offer.port_s;
    wish.spi_uc = *x.choice.offer.spi_c;
    wish.spi_us = *x.choice.offer.spi_s;
    wish.algorithms = x.choice.algorithms;
    if (x.carried_by) wish.port_ps = x.carried_by->port_ps;  // B-17
    auto reserved = p_.sets.reserve(wish, *x.access->profile, x.access->interface->strict_collision);
    auto esp_keys = xfrm::derive_esp_keys(x.choice.algorithms, keys.ck, keys.ik);
    if (!reserved || !esp_keys) {
        if (!reserved) p_.counters.add(Counter::set_limit);
        response.wipe();
        object(x, {reserved ? 500 : 503, "limit", reserved ? esp_keys.error().text : reserved.error().text});
        co_return;
    }
    auto set = co_await p_.sets.install(std::move(*reserved), std::move(*esp_keys));  // B-34
    if (!set) {
        response.wipe();
        const bool taken = set.error().code == EEXIST;
        object(x, {taken ? 480 : 503, "kernel", fmt::format("the kernel refuses the SAs: {}{}", set.error().text, taken ? " (an SPI of the phone is in use at its address)" : "")});
        co_return;
    }
    if (x.over == Over::established && !p_.table.find_set(x.set).set) {  // ended meanwhile
        response.wipe();
        co_await p_.sets.remove(std::move(*set));
        object(x, {480, "set", "the registration ended while the core was asked"});
        co_return;
    }

    auto challenge = std::make_unique<Challenge>();
    challenge->impi = x.impi;
    challenge->ue = ue;
    challenge->contact = x.contact;
    challenge->nonce = keys.nonce;
    challenge->token = x.token;
    if (x.over == Over::established) challenge->came_over = x.set;
    challenge->set = std::move(*set);
    auto& fresh = *challenge->set;
    fresh.security_client = x.client;
    const auto& parameters = fresh.parameters;
    const OwnParameters own{parameters.spi_pc, parameters.spi_ps, parameters.port_pc, parameters.port_ps};
    fresh.security_server = security_server(x.choice, x.policy, *x.access->interface, own);
    x.record.security_associations = describe(parameters);
    const auto server = fresh.security_server;
    p_.expiry.watch(fresh.number, fresh.expires);
    p_.table.put_challenge(std::move(challenge));

    p_.counters.add(Counter::challenge_tx);
    p_.counters.add(Counter::mechanism_ipsec);
    if (is_deprecated(x.choice.algorithms)) p_.counters.add(Counter::deprecated_chosen);
    answer(x, register_response_to_ue(*response, server), (*response).status(), "challenged; the SAs are installed");
    response.wipe();
}

// ----------------------------------------------------------------------------------------------------------- 200: established

Task<void> RegisterFlow::accept(Exchange& x, sip::OwnedMessage response) {
    const auto guard = co_await impi_lock_.acquire(x.impi);
    if (x.over == Over::unprotected) {
        answer(x, register_response_to_ue(*response, std::nullopt), (*response).status(), "accepted by the core without a challenge: no SAs, no service on this port");
        co_return;
    }
    const auto owner = p_.table.find_set(x.set);
    if (!owner.set || (owner.challenge && owner.challenge->finished)) {
        p_.counters.add(Counter::wrong_sa);
        object(x, {480, "set", "the set of SAs ended while the core was asked"});
        co_return;
    }
    const auto expires = granted_expiry(*response, x.request());
    if (expires.count() == 0) deregister(x, response);  // C-50
    else if (x.over == Over::temporary) co_await establish(x, response, expires);
    else co_await refresh(x, response, expires);
}

// SM12: the temporary set becomes established (C-40, C-42, B-51, B-53, B-54).
Task<void> RegisterFlow::establish(Exchange& x, const sip::OwnedMessage& response, std::chrono::seconds expires) {
    auto until = p_.clock.now() + expires + p_.config.timers.lifetime_margin;
    if (const auto* known = p_.table.find(x.contact))
        for (const auto& set : known->sets) until = std::max(until, set->state == SetState::established ? set->expires : until);
    const auto extended = co_await p_.sets.extend(*x.carried_by, until);
    auto owner = p_.table.find_set(x.set);  // again: the table moved on while the kernel was asked
    if (!owner.challenge || owner.challenge->finished) {
        object(x, {480, "set", "the temporary set ended while it was being established"});
        co_return;
    }
    if (!extended) {
        object(x, {500, "kernel", "the lifetime of the SAs cannot be extended: " + extended.error().text});
        finish_challenge(x);
        co_return;
    }
    auto challenge = p_.table.take_challenge(owner.challenge->impi, owner.challenge->ue);
    auto* registration = p_.table.find(x.contact);
    const bool reauthentication = registration && challenge->came_over && registration->find(*challenge->came_over);
    if (!registration) {
        auto made = std::make_unique<Registration>();
        made->key = x.contact;
        made->token = x.token;
        registration = &p_.table.add(std::move(made));
    }
    auto leaving = settle_sets(*registration, std::move(challenge->set), reauthentication, until);
    learn(*registration, x, *response, expires);
    p_.counters.add(reauthentication ? Counter::reregistered : Counter::registered);
    answer(x, register_response_to_ue(*response, std::nullopt), (*response).status(), "registered");
    for (auto& set : leaving) co_await p_.sets.remove(std::move(set));
}

// What happens to the sets that were there before (table C-44). Those that end at once come back.
std::vector<std::unique_ptr<SaSet>> RegisterFlow::settle_sets(Registration& registration, std::unique_ptr<SaSet> fresh, bool reauthentication, TimePoint expires) {
    std::vector<SetNumber> ending;
    const auto now = p_.clock.now();
    for (const auto& set : registration.sets) {
        const bool moved = set->parameters.ue != fresh->parameters.ue;
        if (reauthentication && set->in_use) {
            set->state = SetState::old;  // keeps carrying outbound traffic until the UE uses the new one (B-54)
            p_.expiry.watch(set->number, set->expires - p_.config.timers.old_set);
        } else if (!reauthentication && moved && !registration.ended) {
            // The phone changed its address or access: what it still has in flight may finish (design: 64*T1 after the new 200).
            set->state = SetState::old;
            set->in_use = false;
            set->expires = std::min(set->expires, now + p_.config.timers.old_set);
            p_.expiry.watch(set->number, set->expires);
        } else {
            ending.push_back(set->number);
        }
    }
    std::vector<std::unique_ptr<SaSet>> leaving;
    for (const auto number : ending) leaving.push_back(p_.table.take_set(registration, number));
    fresh->state = SetState::established;
    fresh->in_use = !reauthentication;
    fresh->expires = expires;
    p_.expiry.watch(fresh->number, expires);
    p_.table.add_set(registration, std::move(fresh));
    return leaving;
}

// A refresh without a challenge extends the SAs of the last successful authentication (B-52).
Task<void> RegisterFlow::refresh(Exchange& x, const sip::OwnedMessage& response, std::chrono::seconds expires) {
    auto* registration = p_.table.find_set(x.set).registration;
    const auto* newest = registration->sets.back().get();
    const auto number = newest->number;
    const auto parameters = newest->parameters;
    const auto until = std::max(newest->expires, p_.clock.now() + expires + p_.config.timers.lifetime_margin);
    const auto extended = co_await p_.sets.extend(parameters, until);
    const auto owner = p_.table.find_set(number);  // again after the await
    if (!extended || !owner.registration) {
        object(x, {extended ? 480 : 500, "kernel", extended ? "the registration ended while it was being refreshed" : "the lifetime of the SAs cannot be extended: " + extended.error().text});
        co_return;
    }
    owner.set->expires = until;
    p_.expiry.watch(number, until);
    learn(*owner.registration, x, *response, expires);
    p_.counters.add(Counter::reregistered);
    answer(x, register_response_to_ue(*response, std::nullopt), (*response).status(), "refreshed");
}

// C-39: what the 200 tells of the user.
void RegisterFlow::learn(Registration& registration, const Exchange& x, const sip::Message& response, std::chrono::seconds expires) {
    registration.service_route = route_values(response, sip::HeaderId::service_route);
    registration.impus = associated_identities(response, x.request());
    registration.contact_uri = contact_uri(x.request());
    registration.realm_id = x.access->interface->realm_id;
    registration.transport = x.flow().transport;
    registration.expires = p_.clock.now() + expires;
    registration.ended = false;
    ++registration.generation;
}

// C-50: the 200 still leaves through the SA, then the sets end.
void RegisterFlow::deregister(Exchange& x, const sip::OwnedMessage& response) {
    p_.counters.add(Counter::deregistered);
    answer(x, register_response_to_ue(*response, std::nullopt), (*response).status(), "de-registered");
    if (x.over == Over::temporary) finish_challenge(x);
    if (contact_is_star(x.request())) {
        for (auto* registration : p_.table.find_by_impi(x.impi)) end(*registration);
    } else if (auto* registration = p_.table.find(x.contact)) {
        end(*registration);
    }
}

void RegisterFlow::end(Registration& registration) {
    registration.ended = true;
    ++registration.generation;
    const auto until = p_.clock.now() + p_.config.timers.final_answer;
    for (const auto& set : registration.sets) {
        set->expires = std::min(set->expires, until);
        p_.expiry.watch(set->number, set->expires);
    }
}

// --------------------------------------------------------------------------------------------------------------------- answers

// B-41: the failure is told on the set of SAs that carried the REGISTER; a temporary one ends with it, established ones stay (B-5).
void RegisterFlow::decline(Exchange& x, const sip::OwnedMessage& response) {
    answer(x, register_response_to_ue(*response, std::nullopt), response->status(), "declined by the core");
    if (x.over == Over::temporary) finish_challenge(x);
}

void RegisterFlow::finish_challenge(const Exchange& x) {
    const auto owner = p_.table.find_set(x.set);
    if (!owner.challenge) return;
    owner.challenge->finished = true;
    owner.set->expires = std::min(owner.set->expires, p_.clock.now() + p_.config.timers.final_answer);
    p_.expiry.watch(owner.set->number, owner.set->expires);
}

void RegisterFlow::object(Exchange& x, const Objection& objection) {
    std::vector<std::string> extra;
    if (objection.status == 494 || objection.status == 421) {
        // over a set our unmodified list; elsewhere what this interface supports.
        const auto server = x.sent_security_server.empty() ? supported_mechanisms(x.policy) : x.sent_security_server;
        if (!server.empty()) extra.push_back("Security-Server: " + server);
        if (objection.status == 421) extra.emplace_back("Require: sec-agree");
    }
    if (objection.status == 420) extra.push_back("Unsupported: " + objection.check);
    if (objection.status == 480 || objection.status == 503) extra.emplace_back("Retry-After: 5");
    p_.counters.add(counter_of(objection.status));
    x.record.checks.push_back({objection.check, false, objection.why});
    answer(x, sip::make_response(x.request(), objection.status, reason_phrase(objection.status), random_hex(4), extra), objection.status, objection.why);
    // B-37: a failed answer aborts the procedure; an established set stays whatever was refused on it (G-27).
    if (x.over == Over::temporary) finish_challenge(x);
}

void RegisterFlow::answer(Exchange& x, std::string response, int status, std::string_view why) {
    x.record.answer = status;
    x.record.why = why;
    const auto sent = x.transaction->respond(std::move(response));
    if (!sent) log::warning("answer-not-sent", {{"impi", x.impi.value}, {"ue", x.record.ue}, {"status", status}, {"reason", sent.error().text}});
}

}  // namespace gmgate::daemon
