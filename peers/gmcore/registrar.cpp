#include "registrar.h"

#include "../common/text.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace gmgate::peers {
namespace {

constexpr std::uint32_t kDefaultExpires = 3600;
constexpr std::size_t kMaxPending = 8;

std::uint32_t asked_expires(const SipMessage& request) {
    const auto contact = NameAddr::parse(request.get("Contact"));
    if (contact)
        if (const std::string* value = contact->parameters.find("expires"))
            return to_number<std::uint32_t>(*value).value_or(kDefaultExpires);
    return to_number<std::uint32_t>(request.get("Expires")).value_or(kDefaultExpires);
}

std::uint32_t seconds_left(const Binding& binding) {
    const auto left = std::chrono::ceil<std::chrono::seconds>(binding.expires - Clock::now()).count();
    return static_cast<std::uint32_t>(std::max<std::int64_t>(left, 0));
}

std::string instance_of(const NameAddr& contact) {
    const std::string* instance = contact.parameters.find("+sip.instance");
    if (!instance) return {};
    const std::string* reg_id = contact.parameters.find("reg-id");
    return unquote(*instance) + (reg_id ? "#" + *reg_id : "");
}

// True for the values by which a P-CSCF says "this came over what the last authentication set up". TS 24.229 §7.2A.2.
bool vouches(std::string_view protection) {
    return protection == "yes" || protection == "tls-yes" || protection == "ip-assoc-yes";
}

const Challenge* find_pending(const User& user, const std::string& nonce) {
    const auto it = std::ranges::find(user.pending, nonce, &Challenge::nonce);
    return it == user.pending.end() ? nullptr : &*it;
}

}  // namespace

std::optional<SipMessage> Registrar::handle(const SipMessage& request, const Behaviour& behaviour) {
    Facts facts{request, behaviour, nullptr, AuthHeader(), false, {}, {}, {}};
    if (const std::string* value = request.find("Authorization")) {
        if (auto header = AuthHeader::parse(*value)) {
            facts.authorization = std::move(*header);
            facts.has_authorization = true;
        }
    }
    facts.protection = lower(facts.authorization.get("integrity-protected"));
    SipMessage response = decide(facts);
    if (behaviour.silent) facts.outcome = "silent";
    write_event(facts, response.status());
    if (behaviour.silent) return std::nullopt;
    return response;
}

SipMessage Registrar::decide(Facts& facts) {
    const std::string to = facts.request.uri_of("To");
    const std::string impi = facts.authorization.get("username");
    facts.user = impi.empty() ? users_.by_aor(to) : users_.by_impi(impi);
    if (facts.behaviour.refuse) return refuse(facts, *facts.behaviour.refuse, "told to refuse");
    if (!facts.user) return refuse(facts, 403, "unknown user");
    if (users_.by_aor(to) != facts.user)
        return refuse(facts, 403, "the public identity is not one of this private identity");
    if (const std::string* auts = facts.authorization.find("auts"); auts && !auts->empty())
        return resynchronise(facts, *auts);

    const bool has_response = !facts.authorization.get("response").empty();
    const std::string nonce = facts.authorization.get("nonce");
    // TS 33.203 §6.1.5 and requirements C-20: "no" means that nothing vouches for the sender, whatever the response
    // says.
    if (facts.protection == "no") {
        facts.why = has_response ? "a response, but not integrity protected" : "not integrity protected";
        return challenge(facts);
    }
    if (has_response)
        if (const Challenge* pending = find_pending(*facts.user, nonce)) return verify(facts, *pending);
    if (vouches(facts.protection)) {
        if (facts.user->live_bindings().empty()) {
            facts.why = "protected, but not registered";
            return challenge(facts);
        }
        const bool leaving = asked_expires(facts.request) == 0;
        if (facts.behaviour.challenge_refresh && !leaving) {
            facts.why = "told to challenge";
            return challenge(facts);
        }
        facts.why = "protected by the last authentication";
        return accept(facts);
    }
    // A password user without a P-CSCF may repeat the nonce of his last success (RFC 2617 §3.3).
    if (has_response && !facts.user->aka && nonce == facts.user->last_good_nonce && !nonce.empty())
        return verify(facts, Challenge{nonce, std::nullopt});
    facts.why = has_response ? "the nonce is not one of ours that waits for an answer" : "no response";
    return challenge(facts);
}

SipMessage Registrar::challenge(Facts& facts) {
    User& user = *facts.user;
    facts.outcome = "challenge";
    Challenge next;
    AuthHeader header;
    header.add("realm", users_.realm(), true);
    if (user.aka) {
        Rand rand{};
        fill_random(rand);
        next.vector =
            make_auth_vector(*user.aka, rand, facts.behaviour.stale_challenge ? Sqn{0} : user.next_sqn(), user.amf);
        next.nonce = aka_nonce(next.vector->rand, next.vector->autn);
    } else {
        next.nonce = random_token(32);
    }
    header.add("nonce", next.nonce, true);
    header.add("algorithm", std::string(name(user.algorithm)), false);
    if (!user.qop.empty()) header.add("qop", user.qop, true);
    if (next.vector && !facts.behaviour.omit_keys) {
        header.add("ck", to_hex(next.vector->ck.expose()), true);
        header.add("ik", to_hex(next.vector->ik.expose()), true);
    }
    user.pending.push_back(std::move(next));
    if (user.pending.size() > kMaxPending) user.pending.pop_front();
    SipMessage response = SipMessage::response_to(facts.request, 401, "", random_token());
    response.add("WWW-Authenticate", header.to_string());
    return response;
}

SipMessage Registrar::resynchronise(Facts& facts, const std::string& auts_text) {
    User& user = *facts.user;
    const auto octets = from_base64(auts_text);
    const auto nonce = parse_aka_nonce(facts.authorization.get("nonce"));
    if (!user.aka || !octets || octets->size() != 14 || !nonce) return refuse(facts, 403, "unusable auts");
    Auts auts{};
    std::ranges::copy(*octets, auts.begin());
    const auto sqn_ms = verify_auts(*user.aka, nonce->rand, auts);
    if (!sqn_ms) return refuse(facts, 403, "auts with a wrong MAC-S");
    user.sqn = *sqn_ms;
    user.pending.clear();
    Behaviour cured = facts.behaviour;
    cured.stale_challenge = false;
    Facts again{facts.request,    cured, facts.user, facts.authorization, facts.has_authorization,
                facts.protection, {},    {}};
    SipMessage response = challenge(again);
    facts.outcome = "resynchronised";
    facts.why = "SQN_MS " + to_hex(sqn_ms->octets());
    return response;
}

bool Registrar::response_is_right(const Facts& facts, const Challenge& challenge) const {
    const User& user = *facts.user;
    const AuthHeader& a = facts.authorization;
    DigestInput input{.algorithm = hash_of(user.algorithm),
                      .username = user.impi,
                      .realm = users_.realm(),
                      .method = facts.request.method(),
                      .uri = a.get("uri"),
                      .nonce = challenge.nonce,
                      .qop = a.get("qop"),
                      .nc = a.get("nc"),
                      .cnonce = a.get("cnonce"),
                      .body = facts.request.body};
    std::string expected;
    if (!challenge.vector) {
        expected = digest_response(input, user.password.expose());
    } else if (user.algorithm == DigestAlgorithm::akav1_md5) {
        expected = digest_response(input, challenge.vector->xres.expose());
    } else {
        const SecretBytes password = akav2_password(input.algorithm, challenge.vector->xres.expose(),
                                                    challenge.vector->ik, challenge.vector->ck);
        expected = digest_response(input, password.expose());
    }
    return equal_secret(as_bytes(expected), as_bytes(lower(a.get("response"))));
}

SipMessage Registrar::verify(Facts& facts, const Challenge& pending) {
    if (response_is_right(facts, pending)) {
        facts.why = "right response";
        facts.user->last_good_nonce = pending.nonce;
        facts.user->pending.clear();
        return accept(facts);
    }
    if (facts.behaviour.wrong_response_status == 401) {
        facts.why = "wrong response";
        return challenge(facts);
    }
    std::erase_if(facts.user->pending, [nonce = pending.nonce](const Challenge& c) { return c.nonce == nonce; });
    return refuse(facts, facts.behaviour.wrong_response_status.value_or(403), "wrong response");
}

SipMessage Registrar::refuse(Facts& facts, int status, std::string why) {
    facts.outcome = "refused";
    facts.why = std::move(why);
    return SipMessage::response_to(facts.request, status, "", random_token());
}

SipMessage Registrar::accept(Facts& facts) {
    const SipMessage& request = facts.request;
    std::vector<Binding>& bindings = facts.user->live_bindings();
    const std::uint32_t asked = asked_expires(request);
    const std::uint32_t granted = asked == 0 ? 0 : facts.behaviour.expires.value_or(asked);
    const std::string contact_text = request.get("Contact");
    const auto contact = NameAddr::parse(contact_text);
    const bool query = contact_text.empty();
    if (granted == 0 && trim(contact_text) == "*") {
        bindings.clear();
    } else if (!query) {
        if (!contact) return refuse(facts, 400, "malformed Contact");
        Binding binding{contact->uri,
                        {},
                        instance_of(*contact),
                        request.list("Path"),
                        Clock::now() + std::chrono::seconds(granted),
                        request.call_id(),
                        request.cseq()};
        Parameters parameters = contact->parameters;
        parameters.remove("expires");
        binding.parameters = parameters.to_string();
        // Without +sip.instance a private identity has one contact: a phone that lost its state must not leave a ghost
        // behind.
        std::erase_if(bindings, [&](const Binding& b) { return b.instance == binding.instance; });
        if (granted != 0) bindings.push_back(std::move(binding));
    }
    facts.outcome = query ? "queried" : granted == 0 ? "deregistered" : "registered";
    SipMessage response = SipMessage::response_to(request, 200, "", random_token());
    for (const std::string& path : request.list("Path")) response.add("Path", path);
    for (const Binding& b : bindings)
        response.add("Contact", fmt::format("<{}>{};expires={}", b.contact, b.parameters, seconds_left(b)));
    if (granted != 0 || query) {
        response.add("Service-Route", service_route_);
        for (const std::string& impu : facts.user->impus) response.add("P-Associated-URI", '<' + impu + '>');
    }
    return response;
}

void Registrar::write_event(const Facts& facts, int status) {
    const SipMessage& request = facts.request;
    const std::string nonce = facts.authorization.get("nonce");
    // What a P-CSCF must have taken out (requirements C-16); tests look at this list.
    std::vector<std::string> leftovers;
    for (const char* header : {"Security-Client", "Security-Server", "Security-Verify"})
        if (request.find(header)) leftovers.emplace_back(header);
    for (const char* header : {"Require", "Proxy-Require"})
        if (request.list_has(header, "sec-agree")) leftovers.push_back(std::string(header) + ": sec-agree");
    log_.write({{"event", "register"},
                {"impi", facts.user ? facts.user->impi : facts.authorization.get("username")},
                {"impu", request.uri_of("To")},
                {"call_id", request.call_id()},
                {"cseq", request.cseq()},
                {"integrity_protected", facts.protection},
                {"has_authorization", facts.has_authorization},
                {"has_response", !facts.authorization.get("response").empty()},
                {"has_auts", !facts.authorization.get("auts").empty()},
                {"nonce", nonce},
                {"contact", request.get("Contact")},
                {"path", request.list("Path")},
                {"expires", asked_expires(request)},
                {"sec_agree_leftovers", leftovers},
                {"status", status},
                {"outcome", facts.outcome},
                {"why", facts.why}});
}

}  // namespace gmgate::peers
