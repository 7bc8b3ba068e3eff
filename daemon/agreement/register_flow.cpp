#include "daemon/agreement/register_flow.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/log.h"
#include "base/spawn.h"
#include "daemon/agreement/contact.h"
#include "daemon/rules/header_rules.h"
#include "daemon/rules/identity.h"
#include "daemon/rules/request_syntax.h"
#include "sip/message/edit.h"
#include "sip/message/headers.h"

namespace gmgate::daemon {
namespace {

std::string_view reason_phrase(int status) {
    switch (status) {
        case 400:
            return "Bad Request";
        case 403:
            return "Forbidden";
        case 416:
            return "Unsupported URI Scheme";
        case 420:
            return "Bad Extension";
        case 421:
            return "Extension Required";
        case 480:
            return "Temporarily Unavailable";
        case 483:
            return "Too Many Hops";
        case 494:
            return "Security Agreement Required";
        case 500:
            return "Server Internal Error";
        case 502:
            return "Bad Gateway";
        case 503:
            return "Service Unavailable";
        case 504:
            return "Server Time-out";
        default:
            return "Error";
    }
}

Counter counter_of(int status) {
    switch (status) {
        case 403:
            return Counter::reject_403;
        case 420:
            return Counter::reject_420;
        case 421:
            return Counter::reject_421;
        case 494:
            return Counter::reject_494;
        default:
            return status >= 500 ? Counter::reject_5xx : Counter::reject_400;
    }
}

// Refuses this request (another interval, another time or place), not its sender.
bool asks_to_try_again(int status) { return status == 423 || status / 100 == 3 || status / 100 == 5; }

}  // namespace

// ---------------------------------------------------------------------------------------------------------------- the
// whole way

Task<void> RegisterFlow::handle(std::shared_ptr<sip::ServerTransaction> transaction) {
    Exchange x;
    x.transaction = std::move(transaction);
    try {
        co_await serve(x);
    } catch (const std::exception& e) {
        fail(x, e.what());
    }
}

// Out of memory: this request is refused and leaves nothing behind.
void RegisterFlow::fail(Exchange& x, const char* why) {
    std::erase_if(asking_, [&](const auto& one) { return one.second == &x; });
    p_.trace.core_answered(x.asked);
    guarded("register", [&] {
        log::error("register-failed", {{"ue", x.record.ue}, {"reason", why}});
        if (x.transaction->is_completed()) return;
        const std::vector<std::string> extra{"Retry-After: 5"};
        static_cast<void>(x.transaction->respond(
            sip::make_response(x.request(), 503, reason_phrase(503), x.transaction->tag(), extra)));
    });
}

Task<void> RegisterFlow::serve(Exchange& x) {
    x.arrival = ++arrivals_;
    if (!arrive(x)) co_return;  // over no or the wrong set: dropped and counted (B-23)

    auto objection = read(x);
    if (!objection && x.has_ended)
        objection = {480, "set", "these SAs ended with the answer before: register anew over the unprotected port"};
    if (!objection) objection = check(x);
    if (!objection) objection = spare_core(x);
    if (objection) {
        object(x, *objection);
        p_.trace.add(std::move(x.record), x.sender);
        co_return;
    }

    co_await drop_failed_challenge(x);  // B-42
    const auto asking = asking_.emplace(std::pair{x.impi, x.ue()}, &x);
    PendingRegister pending{x.record.time, x.impi, x.record.ue, x.record.over};
    x.asked = p_.trace.core_asked(std::move(pending));
    auto response = co_await ask_core(x);  // C.2, C.3: stripped, marked, forwarded
    p_.trace.core_answered(x.asked);
    const bool may_try_again =
        response ? asks_to_try_again((*response)->status()) : response.error().reaction != Reaction::reject;
    if (may_try_again && x.over == Over::temporary && p_.sets.is_waiting(x.set)) {
        const auto taken = co_await take_spis(x.set);  // the phone must hear of it: register_same_spis.cpp
        if (!taken) {                                  // nobody would hear what leaves through it
            log::warning("spis-not-taken", {{"set", x.set.value}, {"reason", taken.error().text}});
            finish_challenge(x);
        }
    }
    if (!response && response.error().reaction == Reaction::reject) {
        object(x, {483, "max-forwards", response.error().text});
    } else if (!response && x.is_disliked) {  // no fault of the core's, and no alarm for its operator
        p_.counters.add(Counter::core_closed);
        object(x, {502, "core-closes", "the core closes the connection when it reads this request"});
    } else if (!response && response.error().reaction == Reaction::exhausted) {
        object(x, {503, "core", response.error().text});
    } else if (!response) {
        p_.counters.add(Counter::core_unreachable);
        object(x, {504, "core", "the core gives no answer: " + response.error().text});  // C-18
    } else if ((*response)->status() == 401 || (*response)->status() == 407) {
        co_await challenge(x, std::move(*response));  // C.5: the SAs exist before the 401 leaves
    } else if ((*response)->status() < 300) {
        co_await accept(x, std::move(*response));  // C.6
    } else {
        decline(x, *response);  // B-41
    }
    asking_.erase(asking);
    // Only a challenge with SAs, whose number is bounded, has a claim to its transaction: in a flood of other REGISTERs
    // a copy asks the core again.
    if (x.over == Over::unprotected && x.record.set == SetNumber{}) x.transaction->forget_when_crowded();
    p_.trace.add(std::move(x.record));
}

// ---------------------------------------------------------------------------------------------------------- arrival
// and reading

// Over what did it come? The kernel says so by the mark of the inbound SA, never the message.
bool RegisterFlow::arrive(Exchange& x) {
    const auto& flow = x.flow();
    x.access = p_.accesses.find(flow.local);
    if (!x.access) return false;
    x.record.time = p_.clock.wall();
    x.record.ue = fmt::format("{}/{}", flow.remote.to_string(), sip::to_string(flow.transport));
    x.record.realm_id = x.access->interface->realm_id;
    x.record.over = "unprotected";
    if (flow.transport == sip::Transport::tls) {
        x.over = Over::tls;
        x.is_bound = p_.table.owner_of(flow).registration != nullptr;
        x.record.over = fmt::format("{} TLS connection {}", x.is_bound ? "bound" : "unbound", flow.connection.value);
    } else if (p_.accesses.is_protected(flow.local)) {
        const auto owner = p_.table.owner_of(flow);
        x.has_ended =
            (owner.challenge && owner.challenge->finished) || (owner.registration && owner.registration->ended);
        if (!owner.set || x.has_ended) p_.counters.add(Counter::wrong_sa);
        if (!owner.set) return false;
        x.over = owner.challenge ? Over::temporary : Over::established;
        x.set = owner.set->number;
        x.carried_by = owner.set->parameters;
        x.sent_security_server = owner.set->security_server.text();
        x.record.over = fmt::format("{} set {}", to_string(owner.set->state), x.set.value);
        if (owner.registration) p_.expiry.used(*owner.registration, x.set);
        if (flow.transport == sip::Transport::udp) {
            p_.sets.heard_datagram(x.set);
            x.transaction->set_reply_flow(SaSets::udp_flow(*owner.set));  // B-15, B-39
        }
    } else if (flow.transport == sip::Transport::udp) {
        x.transaction->set_reply_flow(unprotected_reply_flow(x.request(), flow));  // RFC 3261 §18.2.2, RFC 3581
    }
    static constexpr Counter kReceived[] = {Counter::register_rx_unprotected, Counter::register_rx_temporary,
                                            Counter::register_rx_established, Counter::register_rx_tls};
    p_.counters.add(kReceived[static_cast<std::size_t>(x.over)]);
    return true;
}

// Nothing in it may be read in two ways. A request that is refused for that is recorded for the user whose protection
// carried it; without protection for the user that it names, when that at least can be read in one way only.
std::optional<Objection> RegisterFlow::read_credentials(Exchange& x) {
    x.credentials = sip::RequestCredentials::read(x.request());
    auto ambiguity = check_syntax(x.request());
    if (!ambiguity) ambiguity = check_unambiguous(x.request(), x.credentials);
    if (!ambiguity) return std::nullopt;
    const auto owner = p_.table.owner_of(x.flow());
    if (owner.challenge) x.record.impi = owner.challenge->impi;
    else if (owner.registration) x.record.impi = owner.registration->key.impi;
    else if (!x.credentials.objection()) x.record.impi = impi_of(x.request(), x.credentials.authorization);
    return Objection{ambiguity->status, "syntax", std::move(ambiguity->why)};
}

// What carried it tells whose it is, not how its Contact is spelled this time: instance and reg-id may be missing,
// added or written otherwise.
void RegisterFlow::recognise_contact(Exchange& x) {
    bool is_known = false;
    const auto adopt = [&](const ContactKey& key) {
        if (key.impi != x.impi || is_emergency_contact(key) != is_emergency_contact(x.contact)) return;
        x.contact = ContactKey{key};
        is_known = true;
    };
    if (x.over == Over::tls)
        for (const auto* bound : p_.table.bound_to(x.flow().connection)) adopt(bound->key);
    const auto owner = p_.table.find_set(x.set);
    if (owner.challenge) adopt(owner.challenge->contact);
    else if (owner.registration) adopt(owner.registration->key);
    if (is_known || x.over == Over::unprotected || p_.table.find(x.contact)) return;
    if (const auto* known = same_phone(x)) x.contact = ContactKey{known->key};
}

// What carried it belongs to the other kind of contact (an emergency registration is refreshed over the normal one's
// SAs, or the other way round), or to nobody yet (a new TLS connection): the one contact of this kind that its user has
// at this address, when the texts do not contradict each other.
const Registration* RegisterFlow::same_phone(const Exchange& x) {
    const auto ue = x.ue();
    const auto is_here = [&](const Registration& known) {
        if (known.tls && known.tls->flow.remote.address == ue) return true;
        return std::ranges::any_of(known.sets, [&](const auto& set) { return set->parameters.ue == ue; });
    };
    const bool is_stranger = x.over == Over::tls && !x.is_bound;
    const Registration* found = nullptr;
    for (const auto* known : p_.table.find_by_impi(x.impi)) {
        if (known->ended || !is_here(*known) || !may_be_same(known->key, x.contact)) continue;
        if (is_stranger && !have_same_host(known->contact_uri, contact_uri(x.request()))) continue;  // behind one NAT
        if (found) return nullptr;  // two: what it says decides
        found = known;
    }
    return found;
}

std::optional<Objection> RegisterFlow::read(Exchange& x) {
    const auto& request = x.request();
    if (auto objection = read_credentials(x)) return objection;
    x.impi = impi_of(request, x.credentials.authorization);
    x.record.impi = x.impi;
    if (x.impi.empty()) return Objection{400, "to", "To holds no usable URI"};
    x.contact = contact_key(request, x.impi);
    recognise_contact(x);
    x.has_response = x.credentials.authorization.has_response();
    auto client = sip::SecurityList::from(request, sip::HeaderId::security_client);
    if (!client) return Objection{400, "security-client", client.error().text};
    auto verify = sip::SecurityList::from(request, sip::HeaderId::security_verify);
    if (!verify) return Objection{400, "security-verify", verify.error().text};
    x.client = std::move(*client);
    x.verify = std::move(*verify);
    x.record.offer = x.client.to_string();
    const auto& interface = *x.access->interface;
    x.policy = Policy::of(interface, x.access->profile, x.over == Over::tls);
    x.policy.mode = mode_for(x);
    x.record.policy = fmt::format("sec-agree {} {}", interface.sec_agree_feature ? "enabled" : "disabled",
                                  to_string(interface.sec_agree_pref));
    return check_proxy_require(x);
}

// --------------------------------------------------------------------------------------------------------------- to
// the core

// B-42: a phone that refuses the network's challenge (AUTN or SQN) says so with an empty response or `auts`, in clear
// or over the set that it had before; the new SAs end with it. Only the nonce of that very challenge ends it, so that a
// stranger cannot.
Task<void> RegisterFlow::drop_failed_challenge(const Exchange& x) {
    if (x.over != Over::unprotected && x.over != Over::established) co_return;
    const auto& credentials = x.credentials.authorization;
    const auto* waiting = p_.table.find_challenge(x.challenge_key());
    if (!waiting || waiting->finished || !credentials.is_digest()) co_return;
    const auto nonce = credentials.get("nonce").value_or("");
    if (nonce.empty() || nonce != waiting->nonce) co_return;
    if (x.has_response && !credentials.get("auts")) co_return;
    log::info("challenge-refused-by-phone",
              {{"impi", x.impi.value},
               {"ue", waiting->ue.to_string()},
               {"set", waiting->set->number.value},
               {"why", credentials.get("auts") ? "sequence number out of step: it asks for resynchronisation"
                                               : "it does not believe the network's AUTN"}});
    auto challenge = p_.table.take_challenge(x.challenge_key());
    co_await p_.sets.remove(std::move(challenge->set));
}

Task<Result<sip::OwnedMessage>> RegisterFlow::ask_core(Exchange& x) {
    const auto* waiting = p_.table.find_challenge(x.challenge_key());
    if (const auto* known = p_.table.find(x.contact)) x.token = known->token;
    else if (waiting && waiting->contact == x.contact) x.token = waiting->token;
    else x.token = p_.core.marks().new_token();

    RegisterToCore rules;
    rules.received = x.flow();
    rules.visited_network_id = p_.config.core.visited_network_id;
    rules.orig_ioi = p_.config.core.orig_ioi;
    rules.bare_integrity_protected = x.access->interface->bare_integrity_protected;
    rules.credentials = x.credentials;
    rules.integrity_protected = x.integrity_protected;
    x.record.integrity_protected = rules.integrity_protected.value_or("absent");

    if (!has_hops_left(x.request())) co_return failure(Reaction::reject, "Max-Forwards is used up");
    const std::string_view outbound = asks_for_outbound(x.request(), x.contact) ? ";ob" : "";
    const CoreAttempts::Build build = [&](sip::Transport transport, const CoreSide& side) {
        rules.transport = transport;
        rules.via_host = side.via_host;
        rules.path_uri = fmt::format("{}{}", token_uri(x.token, side.uri_host), outbound);
        rules.branch = sip::Transactions::new_branch();
        return register_to_core(x.request(), rules).value_or(std::string{});
    };
    auto targets = co_await p_.core.next_hops();
    if (!targets) co_return std::unexpected(targets.error());
    const bool is_stranger = x.over == Over::unprotected || (x.over == Over::tls && !x.is_bound);
    // A phone that answers a challenge or refreshes has its SAs: it goes on, whatever the core wants held back.
    CoreAttempts attempts(p_.core, std::move(*targets), build, is_stranger ? Traffic::strangers : Traffic::phones,
                          is_stranger ? Importance::ordinary : Importance::ongoing);
    auto sent = co_await attempts.next();
    if (!sent) co_return std::unexpected(sent.error());
    for (;;) {
        auto response = co_await (*sent)->next();
        if (response && (*response)->status() < 200) continue;
        if (!response && sip::is_connection_lost(response.error())) {
            const auto way = co_await attempts.other_way();
            if (way) {
                (*sent)->move_to(*way);
                continue;
            }
        }
        if (attempts.should_try_again(response)) {
            auto another = co_await attempts.next();
            if (another) {
                sent = std::move(another);
                continue;
            }
        }
        x.is_disliked = attempts.is_disliked();
        if (!response) co_return std::unexpected(response.error());
        x.record.core_status = (*response)->status();
        co_return std::move(*response);
    }
}

// ------------------------------------------------------------------------------------------------------- the core's
// challenge

Task<void> RegisterFlow::challenge(Exchange& x, sip::OwnedMessage response) {
    auto keys = keys_of(*response);  // taken out here, overwritten below (C-31)
    if (x.over == Over::temporary) {
        // A challenge to the answer of a challenge: its UE SPIs are in use by this very set, so no new one can stand
        // beside it. The UE gets no Security-Server, gives up and starts again (C-37).
        aim_failure(x);
        pass(x, response, "challenged again over the temporary set: the phone starts anew");
        finish_challenge(x);
    } else if (x.choice.mechanism == MechanismKind::tls) {
        challenge_tls(x, response);
    } else if (x.choice.mechanism == MechanismKind::none) {
        pass(x, response, "challenged; no agreement was asked for");
    } else if (!keys.present) {
        p_.counters.add(Counter::ck_ik_missing);
        const bool offers_tls = std::ranges::any_of(x.client.mechanisms(), [](const auto& m) { return m.is("tls"); });
        if (x.over == Over::unprotected && x.policy.tls && offers_tls) {  // C-35: a digest user, then
            x.choice.mechanism = MechanismKind::tls;
            challenge_tls(x, response);
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

// -------------------------------------------------------------------------------------------------------- the core's
// acceptance

Task<void> RegisterFlow::accept(Exchange& x, sip::OwnedMessage response) {
    const auto guard = co_await impi_lock_.acquire(x.impi);
    if (x.over == Over::unprotected) {
        pass(x, response, "accepted by the core without a challenge: no protection, no service on this port");
        co_return;
    }
    // Over TLS only a REGISTER that proved who sent it changes anything: with a response, or with the bound user's
    // identity (B-97, G-27).
    if (x.over == Over::tls && !x.has_response && !(x.is_bound && x.names_impi())) {
        pass(x, response, "accepted by the core without a proof of identity: nothing is bound");
        co_return;
    }
    const auto owner = p_.table.find_set(x.set);
    if (x.over != Over::tls && (!owner.set || (owner.challenge && owner.challenge->finished))) {
        p_.counters.add(Counter::wrong_sa);
        object(x, {480, "set", "the set of SAs ended while the core was asked"});
        co_return;
    }
    give_back_authentication(x);
    const auto asks = asks_for(x.request());
    if (asks == Asks::nothing) {  // RFC 3261 §10.2.3
        pass(x, response, "queried: nothing changes");
        co_return;
    }
    if (asks == Asks::time && (x.is_overtaken || (owner.registration && owner.registration->ended))) {
        object(x, {480, "set", "the phone de-registered while the core was asked"});
        co_return;
    }
    const auto expires = asks == Asks::end ? std::chrono::seconds{0} : time_granted(x, *response);
    if (expires.count() == 0 && x.over == Over::tls) {  // C-49, asked again: the connection is one user's
        if (const auto objection = check_binding(x)) {
            object(x, *objection);
            co_return;
        }
    }
    if (expires.count() == 0) co_await deregister(x, response);  // C-50
    else if (x.over == Over::tls) co_await bind_tls(x, response, expires);
    else if (x.over == Over::temporary) co_await establish(x, response, expires);
    else co_await refresh(x, response, expires);
}

// A registrar that accepts without naming the contact has registered it all the same.
std::chrono::seconds RegisterFlow::time_granted(const Exchange& x, const sip::Message& response) const {
    const auto grant = granted(response, x.request(), x.flow().remote);
    if (!grant.is_listed)
        log::notice("contact-not-listed", {{"impi", x.impi.value},
                                           {"ue", x.record.ue},
                                           {"contact", contact_uri(x.request())},
                                           {"expires", grant.expires.count()},
                                           {"why",
                                            "the core's 2xx does not name the contact of the REGISTER: it "
                                            "counts as registered for the time that was asked for"}});
    return grant.expires;
}

// The registration of this contact, new or known.
Registration& RegisterFlow::registration_for(const Exchange& x) {
    if (auto* known = p_.table.find(x.contact)) return *known;
    auto made = std::make_unique<Registration>();
    made->key = x.contact;
    made->token = x.token;
    return p_.table.add(std::move(made));
}

// C-39: what the 200 tells of the user.
void RegisterFlow::learn(Registration& registration, const Exchange& x, const sip::Message& response,
                         std::chrono::seconds expires) {
    registration.contact_uri = contact_uri(x.request());
    registration.realm_id = x.access->interface->realm_id;
    registration.transport = x.flow().transport;
    if (registration.ended) registration.identities.clear();  // it begins anew
    RegisteredIdentity identity{.aor = to_identity(x.request()),
                                .impus = associated_identities(response, x.request()),
                                .service_route = route_values(response, sip::HeaderId::service_route),
                                .expires = p_.clock.now() + expires};
    if (const auto displaced = put_identity(registration, std::move(identity)))
        log::notice("identity-ended", {{"impi", x.impi.value},
                                       {"identity", displaced->aor.value},
                                       {"left", registration.identities.size()},
                                       {"why", "one contact has no more identities than these"}});
    registration.ended = false;
    ++registration.generation;
    p_.expiry.watch(registration, registration.first_end());
    if (registered_) registered_(registration);
}

// The row is in the store before the 200 leaves: a phone that was told that it is registered stays so, whatever happens
// to this process.
Task<void> RegisterFlow::keep(ContactKey key) {
    if (p_.keeper) co_await p_.keeper->save(std::move(key));
}

// C-50, TS 24.229 §5.2.5.1: the identity that To names goes with its implicit set; the 200 still leaves through the SA,
// and the sets end when no identity is left. When one is left, and the core had challenged, the new set serves it: the
// phone, which has its 200, uses no other from now on (TS 33.203 §7.4). The rows are written, or gone, before the 200
// leaves: nothing brings back what a phone has ended.
Task<void> RegisterFlow::deregister(Exchange& x, const sip::OwnedMessage& response) {
    p_.counters.add(Counter::deregistered);
    overtake_earlier(x);
    std::vector<Registration*> meant;
    if (contact_is_star(x.request())) {
        for (auto* registration : p_.table.find_by_impi(x.impi))  // an emergency registration ends by its time alone
            if (!is_emergency_contact(registration->key)) meant.push_back(registration);
    } else if (auto* registration = p_.table.find(x.contact)) {
        meant.push_back(registration);
    }
    std::vector<ContactKey> gone, stay;  // the table may change while the store writes
    for (auto* registration : meant) (end_identity(*registration, x) == 0 ? gone : stay).push_back(registration->key);
    const auto* own = p_.table.find(x.contact);
    const bool is_served_on = x.over == Over::temporary && own && !own->identities.empty();
    if (!is_served_on) {
        for (const ContactKey& key : stay) co_await keep(key);
        for (const ContactKey& key : gone) co_await keep(key);
        pass(x, response, stay.empty() ? "de-registered" : "de-registered; other identities of this contact stay");
        if (x.over == Over::temporary) finish_challenge(x);
    }
    for (const ContactKey& key : gone)
        if (auto* registration = p_.table.find(key); registration && registration->identities.empty())
            end(*registration);
    if (is_served_on) co_await serve_what_is_left(x, response);
}

Task<void> RegisterFlow::serve_what_is_left(Exchange& x, const sip::OwnedMessage& response) {
    auto adopted = co_await adopt_set(x, p_.clock.now());  // and as long as the identities that are left
    if (!adopted) co_return;
    co_await answer_over(x, response, std::move(*adopted),
                         "de-registered; other identities of this contact stay, over the new SAs");
}

// How many identities are left.
std::size_t RegisterFlow::end_identity(Registration& registration, const Exchange& x) {
    drop_identity(registration, to_identity(x.request()));
    registration.ended = registration.identities.empty();
    ++registration.generation;
    p_.table.changed(registration.key);
    return registration.identities.size();
}

// A phone that de-registers has changed its mind about what it asked for before: a 200 that comes only now brings
// nothing back, over whatever it comes.
void RegisterFlow::overtake_earlier(const Exchange& x) {
    const auto user = [](const Exchange& one) { return sip::NameAddr::parse(one.request().value(sip::HeaderId::to)); };
    const bool is_star = contact_is_star(x.request());
    const auto mine = user(x);
    for (auto at = asking_.lower_bound({x.impi, Address{}}); at != asking_.end() && at->first.first == x.impi; ++at) {
        auto& other = *at->second;
        const bool is_meant = is_star ? !is_emergency_contact(other.contact) : other.contact == x.contact;
        if (other.arrival >= x.arrival || !is_meant) continue;
        const auto theirs = user(other);
        if (mine && theirs && is_same_identity(mine->uri, theirs->uri)) other.is_overtaken = true;
    }
}

void RegisterFlow::end(Registration& registration) {
    registration.ended = true;
    ++registration.generation;
    p_.table.changed(registration.key);
    if (registration.tls) {  // its bytes are queued already: an orderly close sends them first
        const auto connection = registration.tls->flow.connection;
        p_.table.unbind(registration);
        if (p_.table.bound_to(connection).empty())
            p_.transports.close(connection, false);  // an emergency contact may go on
        if (registration.sets.empty()) {
            p_.table.take(ContactKey{registration.key});
            return;
        }
    }
    const auto until = p_.clock.now() + p_.config.timers.final_answer;
    for (const auto& set : registration.sets) {
        set->expires = std::min(set->expires, until);
        p_.expiry.watch(set->number, set->expires);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// answers

// B-41: a failed authentication is told over the new SAs when the first REGISTER came in clear, else over the old ones
// that carried it.
void RegisterFlow::aim_failure(const Exchange& x) {
    if (x.over != Over::temporary) return;
    const auto* challenge = p_.table.find_set(x.set).challenge;
    const auto* old = challenge && challenge->came_over ? p_.table.find_set(*challenge->came_over).set : nullptr;
    if (!old) return;
    if (!sip::is_reliable(x.flow().transport)) x.transaction->set_reply_flow(SaSets::udp_flow(*old));
    else if (const auto connection = p_.transports.find_connection(old->gateway_server(), old->ue_client()))
        x.transaction->set_reply_flow(*connection);
    // A phone without a connection over the old set gets it on the one that it asked on: it must learn of it (RFC 3261
    // §18.2.2).
}

// The temporary set ends with the refusal of its phone, established ones stay (B-5). An answer that refuses only this
// request (another interval, another time or place) leaves it for the phone's next try, as long as a challenge may
// wait.
void RegisterFlow::decline(Exchange& x, const sip::OwnedMessage& response) {
    aim_failure(x);
    pass(x, response, "declined by the core");
    if (x.over == Over::temporary && !asks_to_try_again(response->status())) finish_challenge(x);
    // B-98: a failed authentication closes the TLS connection; one that is bound already stays for its user (B-5,
    // G-27).
    if (x.over == Over::tls && !x.is_bound && x.has_response) p_.transports.close(x.flow().connection, false);
}

void RegisterFlow::object(Exchange& x, const Objection& objection) {
    std::vector<std::string> extra;
    if (objection.status == 494 || objection.status == 421) {
        // over a set our unmodified list; elsewhere what this interface supports.
        auto server = x.sent_security_server.empty() ? supported_mechanisms(x.policy) : x.sent_security_server;
        if (!server.empty()) extra.push_back("Security-Server: " + server);
        if (x.over == Over::unprotected && x.policy.tls)  // RFC 3329 §2.3.1: it comes back over TLS
            p_.tls_agreements.put_refusal(x.challenge_key(), std::move(server),
                                          p_.clock.now() + p_.config.timers.reg_await_auth);
        if (objection.status == 421 || x.access->interface->server_initiated)
            extra.emplace_back("Require: sec-agree");
    }
    if (objection.status / 100 == 4) extra.push_back(sip::warning_line(objection.why));
    if (objection.status == 420) extra.push_back("Unsupported: " + objection.unsupported);
    if (objection.status == 480 || objection.status == 503) extra.emplace_back("Retry-After: 5");
    p_.counters.add(counter_of(objection.status));
    x.record.checks.push_back({objection.check, false, objection.why});
    answer(
        x,
        sip::make_response(x.request(), objection.status, reason_phrase(objection.status), x.transaction->tag(), extra),
        objection.status, objection.why);
    if (x.over == Over::unprotected)
        x.transaction->forget();  // anybody may ask here; a copy of the request gets the same answer
    // B-37: a failed answer aborts the procedure; an established set stays whatever was refused on it (G-27). A core
    // that was not reached has not judged the phone's answer: it may try again over the same SAs.
    const bool was_judged = objection.status != 502 && objection.status != 504 && objection.check != "core";
    if (x.over == Over::temporary && was_judged) finish_challenge(x);
}

// The core's response as the phone may see it, with Security-Server when given.
void RegisterFlow::pass(Exchange& x, const sip::OwnedMessage& response, std::string_view why,
                        const std::optional<std::string>& security_server) {
    const int status = response->status() == 503 ? 500 : response->status();  // RFC 3261 §16.7 step 6
    answer(x, register_response_to_ue(*response, security_server), status, why);
}

void RegisterFlow::answer(Exchange& x, std::string response, int status, std::string_view why) {
    x.record.answer = status;
    x.record.why = why;
    if (x.over == Over::temporary && p_.sets.is_waiting(x.set))  // the kernel sends it under an SPI that is nobody's
        log::notice("answer-not-sent", {{"impi", x.impi.value},
                                        {"ue", x.record.ue},
                                        {"status", status},
                                        {"reason", "another set has the phone's SPIs, and this answer is no proof"}});
    const auto sent = x.transaction->respond(std::move(response));
    if (!sent)
        log::warning("answer-not-sent",
                     {{"impi", x.impi.value}, {"ue", x.record.ue}, {"status", status}, {"reason", sent.error().text}});
}

}  // namespace gmgate::daemon
