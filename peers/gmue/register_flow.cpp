// The phone's side of registration: TS 33.203 §7.2 (SM1…SM12), TS 24.229 §5.1.1.
#include "phone.h"

#include "../common/sec_agree.h"
#include "../common/text.h"

namespace gmgate::peers {

struct Phone::Attempt {
    SetId set = kClear;  ///< the set that is being negotiated
    Path first;          ///< SM1's way
    Path second;         ///< SM7's way
    AuthHeader challenge;
    std::string authorization;  ///< for the next REGISTER
    std::optional<AkaSuccess> aka;
    bool resynchronise = false;
    bool auts_done = false;
    int resyncs = 0;
    bool mac_failed = false;  ///< AUTN did not verify: the next REGISTER says so and ends the attempt
    std::vector<Header> headers;
};

namespace {

Verdict failed(std::string reason, std::string detail, int status = 0) {
    return {false, status, std::move(reason), std::move(detail), {}};
}

Verdict verdict_of(const Reply& reply) {
    if (!reply.response)
        return failed(reply.failure == "timeout" ? "timeout" : "send-failed",
                      reply.failure == "timeout" ? "no answer" : reply.failure);
    const int status = reply.response->status();
    if (status < 300) return {true, status, "ok", {}, {}};
    std::string detail = fmt::format("{} {}", status, reply.response->reason());
    if (const std::string* warning = reply.response->find("Warning")) detail += ", Warning: " + *warning;
    return failed(fmt::format("status-{}", status), detail, status);
}

// One digit more, without leaving the range.
std::uint32_t altered(std::uint32_t number) { return number ^ 1U; }
std::uint16_t altered(std::uint16_t port) { return static_cast<std::uint16_t>(port ^ 2U); }

std::string replace_number(std::string text, std::string_view parameter, std::uint64_t from, std::uint64_t to) {
    const std::string before = fmt::format("{}={}", parameter, from);
    const std::string after = fmt::format("{}={}", parameter, to);
    for (auto at = text.find(before); at != std::string::npos; at = text.find(before, at + after.size()))
        text.replace(at, before.size(), after);
    return text;
}

std::string alter_end(std::string text, const SecEnd& end) {
    text = replace_number(std::move(text), "spi-c", end.spi_c, altered(end.spi_c));
    text = replace_number(std::move(text), "spi-s", end.spi_s, altered(end.spi_s));
    text = replace_number(std::move(text), "port-c", end.port_c, altered(end.port_c));
    return replace_number(std::move(text), "port-s", end.port_s, altered(end.port_s));
}

std::string alter_algorithms(std::string text) {
    const bool md5 = text.find("hmac-md5-96") != std::string::npos;
    const std::string_view before = md5 ? "alg=hmac-md5-96" : "alg=";
    const auto at = text.find(before);
    if (at == std::string::npos) return text + ";alg=hmac-md5-96";
    const auto end = std::min(text.find_first_of("; ,", at), text.size());
    return text.replace(at, end - at, md5 ? "alg=hmac-sha-1-96" : "alg=hmac-md5-96");
}

/// Security-Client and Security-Verify of SM7, honest or bent as TS 33.226 §4.2.2.3.2 says.
struct EchoedHeaders {
    std::string client;
    std::string verify;
};
EchoedHeaders echoed(const SecuritySet& set, const PhoneConfig& config) {
    EchoedHeaders out{set.client_text, join(set.server_list, ", ")};
    const int test_case = config.faults.bid_down;
    if (test_case == 1 || test_case == 2) out.client = alter_end(out.client, set.ue);
    if (test_case == 2 || test_case == 3) out.verify = alter_end(out.verify, set.network);
    if (test_case == 4) out.verify = alter_algorithms(out.verify);
    if (!config.raw_security_verify.empty()) out.verify = config.raw_security_verify;
    return out;
}

/// An account takeover: a REGISTER for another user, with credentials of his that our own ones are to cover.
void forge(SipMessage& request, const Faults& faults) {
    const std::string own = request.get("Authorization");
    const std::string his = fmt::format("Digest username=\"{}\"", faults.forge_impi);
    request.set("To", fmt::format("<{}>", faults.forge_impu));
    if (faults.forge == "double")
        return request.set("Authorization", fmt::format("{},username=\"{}\"", own, faults.forge_impi));
    request.remove("Authorization");
    const std::string malformed =
        own.substr(0, own.find("username=")) + his.substr(7) + own.substr(own.find(',')) + ",@@";
    request.add("Authorization", faults.forge == "first" ? malformed : own);
    request.add("Authorization", faults.forge == "first" ? own : malformed);
}

}  // namespace

Task<Verdict> Phone::register_now(RegisterKind kind, std::vector<Header> headers) {
    const auto start = Clock::now();
    Verdict verdict = co_await run_register(kind, std::move(headers));
    verdict.took = Clock::now() - start;
    const double ms = std::chrono::duration<double, std::milli>(verdict.took).count();
    if (!verdict.ok) {
        emit({{"event", "register_failed"},
              {"reason", verdict.reason},
              {"status", verdict.status},
              {"detail", verdict.detail},
              {"ms", ms}});
        co_return verdict;
    }
    nlohmann::json event = status();
    event["event"] = kind == RegisterKind::initial   ? "registered"
                     : kind == RegisterKind::refresh ? "reregistered"
                                                     : "deregistered";
    event["challenged"] = verdict.detail == "challenged";
    event["ms"] = ms;
    emit(std::move(event));
    co_return verdict;
}

std::optional<Verdict> Phone::begin_attempt(RegisterKind kind, Attempt& attempt) {
    if (kind == RegisterKind::initial) link_.forget_nat();
    if (kind != RegisterKind::initial) {
        if (!registered_) return failed("not-registered", "register first");
        attempt.first = path(config_.register_over_tcp);
        return std::nullopt;
    }
    call_id_ = random_token(20) + '@' + config_.local.host();
    from_tag_ = random_token();
    last_authorization_.clear();
    attempt.first = config_.tls == TlsUse::prior_to_registration ? kTlsPath : Path{kClear, config_.register_over_tcp};
    tls_server_list_.clear();
    link_.close_tls();
    return std::nullopt;
}

std::optional<Verdict> Phone::offer_fresh_set(Attempt& attempt) {
    if (!config_.ipsec) return std::nullopt;
    if (attempt.set != kClear) remove_set(attempt.set, "abandoned");
    const auto set = link_.prepare_set();
    if (!set) return failed("local", set.error().text);
    attempt.set = *set;
    SecuritySet& fresh = *link_.find(*set);
    fresh.client_text = config_.raw_security_client.empty()
                            ? security_client(config_.offer, fresh.ue, config_.nat, config_.habits.offer_style)
                            : config_.raw_security_client;
    return std::nullopt;
}

// SM6: reads everything before it acts on anything.
std::optional<Verdict> Phone::take_challenge(const SipMessage& response, Attempt& attempt) {
    std::optional<Verdict> problem = read_challenge(response, attempt);
    if (!problem) problem = authenticate(attempt);
    if (!problem && (attempt.resynchronise || attempt.mac_failed)) return std::nullopt;  // another first REGISTER
    if (!problem && config_.ipsec) problem = agree(response, attempt);
    if (!problem && config_.tls != TlsUse::none) problem = agree_on_tls(response);
    return problem;
}

Verdict Phone::end_unchallenged(RegisterKind kind, const SipMessage& response, Attempt& attempt, Verdict answer) {
    if (attempt.set != kClear) remove_set(attempt.set, "not-needed");
    if (kind == RegisterKind::initial && uses_sec_agree())
        return failed("not-challenged", "200 without a challenge: nothing protects this phone", 200);
    attempt.set = kClear;
    accept_200(kind, response, attempt);
    return answer;
}

Task<Verdict> Phone::run_register(RegisterKind kind, std::vector<Header> headers) {
    Attempt attempt;
    attempt.headers = std::move(headers);
    const auto give_up = [&](Verdict verdict) {
        if (attempt.set != kClear) remove_set(attempt.set, "failed");
        return verdict;
    };
    if (auto problem = begin_attempt(kind, attempt)) co_return std::move(*problem);
    // SM1. A resynchronisation starts over with new SPIs and a new client port (requirements B-42).
    do {
        if (auto problem = offer_fresh_set(attempt)) co_return std::move(*problem);
        SipMessage first = make_register(kind, attempt, false);
        const Reply sm6 = co_await transactions_.request(std::move(first), attempt.first, nullptr);
        Verdict answer = verdict_of(sm6);
        if (attempt.mac_failed)  // whatever the network makes of it
            co_return give_up(failed(
                "autn-mac",
                fmt::format("AUTN does not verify: the network does not know K; told it so, answer {}", answer.status),
                401));
        if (answer.ok) co_return end_unchallenged(kind, *sm6.response, attempt, std::move(answer));
        if (answer.status != 401) co_return give_up(std::move(answer));
        if (auto problem = take_challenge(*sm6.response, attempt)) co_return give_up(std::move(*problem));
    } while (attempt.resynchronise || attempt.mac_failed);
    // SM7, over the new SAs or the TLS connection; the answer can only arrive through them.
    attempt.second = second_path(attempt);
    SipMessage second = make_register(kind, attempt, true);
    const Reply sm12 = co_await transactions_.request(std::move(second), attempt.second, nullptr);
    Verdict answer = verdict_of(sm12);
    if (!answer.ok) co_return give_up(std::move(answer));
    last_authorization_ = attempt.authorization;
    accept_200(kind, *sm12.response, attempt);
    answer.detail = "challenged";
    co_return answer;
}

SipMessage Phone::make_register(RegisterKind kind, const Attempt& attempt, bool answering) {
    SipMessage out = SipMessage::request("REGISTER", "sip:" + config_.realm);
    const std::uint32_t expires = kind == RegisterKind::deregister ? 0 : config_.expires;
    out.add("Max-Forwards", "70");
    out.add("From", fmt::format("<{}>;tag={}", config_.impu, from_tag_));
    out.add("To", fmt::format("<{}>", config_.impu));
    out.add("Call-ID", call_id_);
    out.add("CSeq", fmt::format("{} REGISTER", ++cseq_));
    out.add("Contact", fmt::format("{};expires={}{}", contact(), expires,
                                   config_.instance.empty() ? "" : ";+sip.instance=\"<" + config_.instance + ">\""));
    out.add("Expires", std::to_string(expires));
    const std::string& known = attempt.authorization.empty() ? last_authorization_ : attempt.authorization;
    out.add("Authorization",
            !known.empty()
                ? known
                : fmt::format("Digest username=\"{}\",realm=\"{}\",nonce=\"\",uri=\"sip:{}\",response=\"\"{}",
                              config_.impi, config_.realm, config_.realm,
                              config_.habits.two_qops_unquoted ? ",qop=auth,auth-int,algorithm=AKAv1-MD5" : ""));
    if (config_.habits.expires_last) {
        out.remove("Expires");
        out.add("Expires", std::to_string(expires));
    }
    out.add("Supported", uses_sec_agree() ? "path,sec-agree" : "path");
    out.add("Allow", "INVITE,ACK,CANCEL,BYE,OPTIONS,MESSAGE,INFO,UPDATE,PRACK,NOTIFY");
    out.add("P-Access-Network-Info", "3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=0010100010000101");
    out.add("User-Agent", "gmue/" GMGATE_VERSION);
    if (!config_.faults.forge.empty()) forge(out, config_.faults);
    if (uses_sec_agree()) add_sec_agree_to_register(out, attempt, answering);
    for (const Header& header : config_.extra_register_headers) out.add(header.name, header.value);
    for (const Header& header : config_.extra_headers) out.add(header.name, header.value);
    if (!answering)
        for (const Header& header : attempt.headers) out.add(header.name, header.value);
    return out;
}

void Phone::add_sec_agree_to_register(SipMessage& out, const Attempt& attempt, bool answering) {
    out.add("Require", "sec-agree");
    out.add("Proxy-Require", "sec-agree");
    if (!config_.ipsec) {  // TS 24.229 §5.1.1.5.4: the same Security-Client again, and Security-Verify once there is a
                           // list
        out.add("Security-Client", config_.raw_security_client.empty() ? "tls" : config_.raw_security_client);
        if (!tls_server_list_.empty())
            out.add("Security-Verify",
                    config_.raw_security_verify.empty() ? join(tls_server_list_, ", ") : config_.raw_security_verify);
        return;
    }
    SecuritySet& set = *link_.find(attempt.set);
    if (answering) {
        const EchoedHeaders headers = echoed(set, config_);
        out.add("Security-Client", headers.client);
        out.add("Security-Verify", headers.verify);
        return;
    }
    out.add("Security-Client", set.client_text);
    // The list of the last successful authentication (requirements C-27).
    if (const SecuritySet* current = link_.find(attempt.first.set))
        out.add("Security-Verify", join(current->server_list, ", "));
}

std::optional<Verdict> Phone::read_challenge(const SipMessage& response, Attempt& attempt) {
    for (const Header& header : response.headers()) {
        if (!iequals(header.name, "WWW-Authenticate")) continue;
        const auto parsed = AuthHeader::parse(header.value);
        if (!parsed || !iequals(parsed->scheme(), "Digest")) continue;
        // Straight at a core there is no P-CSCF that would take them out.
        if (config_.ipsec && (parsed->find("ck") || parsed->find("ik")))
            return failed("ck-ik-leaked", "the 401 carries ck or ik to the phone", 401);
        attempt.challenge = *parsed;
    }
    if (!attempt.challenge.find("nonce")) return failed("no-challenge", "the 401 has no usable WWW-Authenticate", 401);
    const auto algorithm = digest_algorithm_from(attempt.challenge.get("algorithm"));
    if (!algorithm || is_aka(*algorithm) != config_.aka.has_value())
        return failed("bad-algorithm", fmt::format("challenge with algorithm '{}'", attempt.challenge.get("algorithm")),
                      401);
    return std::nullopt;
}

// The USIM's part, then the Authorization of the next REGISTER.
std::optional<Verdict> Phone::authenticate(Attempt& attempt) {
    attempt.resynchronise = false;
    if (!config_.aka) {
        attempt.authorization = authorization(attempt, config_.password.expose(), {});
        return std::nullopt;
    }
    const auto nonce = parse_aka_nonce(attempt.challenge.get("nonce"));
    if (!nonce) return failed("bad-nonce", nonce.error().text, 401);
    const Sqn sqn_ms = env_.sqns.get(config_.impi);
    AkaOutcome outcome = usim_authenticate(*config_.aka, nonce->rand, nonce->autn, sqn_ms);
    if (std::holds_alternative<AkaMacFailure>(outcome)) {  // TS 24.229 §5.1.1.5.3: an empty response tells the network
        attempt.mac_failed = true;
        attempt.authorization = authorization(attempt, {}, {}, true);
        return std::nullopt;
    }
    if (config_.faults.force_auts && !attempt.auts_done && std::holds_alternative<AkaSuccess>(outcome)) {
        const Sqn ahead{(std::get<AkaSuccess>(outcome).sqn.value + 0x2000) & 0xffff'ffff'ffffULL};
        env_.sqns.set(config_.impi, ahead);
        outcome = AkaSyncFailure{make_auts(*config_.aka, nonce->rand, ahead), std::get<AkaSuccess>(outcome).sqn};
    }
    if (const auto* sync = std::get_if<AkaSyncFailure>(&outcome)) {
        if (++attempt.resyncs > 2)
            return failed("sqn", "the sequence number is still refused after two resynchronisations", 401);
        attempt.auts_done = attempt.resynchronise = true;
        attempt.authorization = authorization(attempt, {}, to_base64(sync->auts));
        emit({{"event", "resynchronising"},
              {"sqn", to_hex(sync->sqn.octets())},
              {"sqn_ms", to_hex(env_.sqns.get(config_.impi).octets())}});
        return std::nullopt;
    }
    attempt.aka = std::move(std::get<AkaSuccess>(outcome));
    env_.sqns.set(config_.impi, attempt.aka->sqn);
    if (config_.faults.wrong_res) attempt.aka->res.buffer()[0] ^= 0xff;
    const DigestAlgorithm algorithm = *digest_algorithm_from(attempt.challenge.get("algorithm"));
    if (algorithm == DigestAlgorithm::akav1_md5) {
        attempt.authorization = authorization(attempt, attempt.aka->res.expose(), {});
    } else {
        const SecretBytes password =
            akav2_password(hash_of(algorithm), attempt.aka->res.expose(), attempt.aka->ik, attempt.aka->ck);
        attempt.authorization = authorization(attempt, password.expose(), {});
    }
    return std::nullopt;
}

std::string Phone::authorization(const Attempt& attempt, ByteView password, const std::string& auts,
                                 bool empty_response) const {
    const AuthHeader& challenge = attempt.challenge;
    const std::string algorithm = challenge.get("algorithm");
    bool qop_auth = false;
    for (const std::string& qop : split_list(challenge.get("qop"), ',')) qop_auth = qop_auth || iequals(qop, "auth");
    const DigestInput input{.algorithm = hash_of(*digest_algorithm_from(algorithm)),
                            .username = config_.faults.answer_as.empty() ? config_.impi : config_.faults.answer_as,
                            .realm = challenge.get("realm"),
                            .method = "REGISTER",
                            .uri = "sip:" + config_.realm,
                            .nonce = challenge.get("nonce"),
                            .qop = qop_auth ? "auth" : "",
                            .nc = "00000001",
                            .cnonce = random_token(),
                            .body = {}};
    AuthHeader out;
    out.add("username", input.username, true);
    out.add("realm", input.realm, true);
    out.add("nonce", input.nonce, true);
    out.add("uri", input.uri, true);
    out.add("response", empty_response ? "" : digest_response(input, password), true);
    if (!algorithm.empty()) out.add("algorithm", algorithm, false);
    if (qop_auth) {
        out.add("qop", "auth", false);
        out.add("nc", input.nc, false);
        out.add("cnonce", input.cnonce, true);
    }
    if (const std::string* opaque = challenge.find("opaque")) out.add("opaque", *opaque, true);
    if (!auts.empty()) out.add("auts", auts, true);  // RFC 3310 §3.4: with the response of an empty password
    return out.to_string();
}

// Annex M.7.2: a phone that sees a NAT and is told no mode for it gives up. Over its SAs the phone has its public
// address already, and Via says so.
Result<std::optional<Endpoint>> Phone::public_address(const SipMessage& response, const Attempt& attempt,
                                                      bool udp_enc_tun) {
    const std::string via = response.get("Via");
    const Parameters parameters = Parameters::parse(via.substr(std::min(via.find(';'), via.size())));
    const std::string* received = parameters.find("received");
    const SecuritySet* carrier = link_.find(attempt.first.set);
    if (carrier && carrier->is_behind_nat != udp_enc_tun)
        return fail("the network changes the mode of a phone that has SAs: {}", response.get("Security-Server"));
    const auto sent_by = Endpoint::parse(link_.sent_by(attempt.first), 0);
    auto known = received ? Endpoint::parse(*received, 0) : sent_by;
    if (!known) return fail("Via is {}", via);
    if (!udp_enc_tun && config_.nat && received && !known->same_address(config_.local))
        return fail("behind NAT at {}, and the network chooses transport mode", *received);
    if (!udp_enc_tun) return std::optional<Endpoint>{};
    if (!carrier && !received) return fail("UDP-enc-tun without a NAT, or without `received` in Via");
    return std::optional((config_.nat_private ? config_.local : *known).with_port(0));
}

// Security-Server to SAs. Nothing is sent before the kernel has them.
std::optional<Verdict> Phone::agree(const SipMessage& response, Attempt& attempt) {
    SecuritySet& set = *link_.find(attempt.set);
    set.server_list = response.list("Security-Server");
    if (set.server_list.empty())
        return failed("no-security-server", "the 401 has no Security-Server (TS 24.229 §5.1.1.5.1: give up)", 401);
    const auto choice = choose(set.server_list, config_.offer, set.ue, config_.nat);
    if (!choice) return failed("bad-security-server", choice.error().text, 401);
    set.pair = choice->pair;
    set.network = choice->network;
    const auto known = public_address(response, attempt, choice->udp_enc_tun);
    if (!known) return failed("nat", known.error().text, 401);
    emit({{"event", "challenge"},
          {"alg", name(set.pair.alg)},
          {"ealg", name(set.pair.ealg)},
          {"security_server", join(set.server_list, ", ")},
          {"port_ps", set.network.port_s},
          {"port_pc", set.network.port_c}});
    if (config_.faults.no_esp) return failed("no-esp", "told not to answer the challenge", 401);
    if (config_.faults.clear) return std::nullopt;
    if (!attempt.aka) return failed("local", "ipsec-3gpp needs an AKA user");
    Key<16> ik = attempt.aka->ik.clone();
    if (config_.faults.wrong_ik) {
        for (std::uint8_t& octet : ik.buffer()) octet ^= 0x5a;
    }
    // A network that has forgotten us may choose a port_pc again that a set of ours still has; two sets cannot share
    // its selectors.
    for (const SetId id : link_.sets())
        if (id != attempt.set && link_.find(id)->kernel && link_.find(id)->network.port_c == set.network.port_c)
            remove_set(id, "port-pc-reused");
    if (const auto installed = link_.install(attempt.set, attempt.aka->ck, ik, *known); !installed)
        return failed("kernel", installed.error().text);
    return std::nullopt;
}

// Security-Server must choose tls where it was offered in clear; over TLS nothing is left to choose (feature text, both
// call flows).
std::optional<Verdict> Phone::agree_on_tls(const SipMessage& response) {
    const std::vector<std::string> list = response.list("Security-Server");
    const bool first_time = config_.tls == TlsUse::during_registration && tls_server_list_.empty();
    if (first_time && list.empty())
        return failed("no-security-server", "the 401 has no Security-Server (TS 24.229 §5.1.1.5.1: give up)", 401);
    if (config_.tls == TlsUse::prior_to_registration && !list.empty())
        return failed("bad-security-server", "Security-Server without Security-Client", 401);
    if (!list.empty()) {
        if (!iequals(SecMechanism::parse(list.front()).name, "tls"))
            return failed("bad-security-server", "Security-Server is " + join(list, ", "), 401);
        tls_server_list_ = list;
    }
    emit({{"event", "challenge"}, {"security_server", join(list, ", ")}});
    if (config_.faults.no_esp) return failed("no-esp", "told not to answer the challenge", 401);
    return std::nullopt;
}

Path Phone::second_path(const Attempt& attempt) const {
    if (config_.tls == TlsUse::none || config_.faults.clear) return {attempt.set, attempt.first.tcp};
    return kTlsPath;
}

void Phone::accept_200(RegisterKind kind, const SipMessage& response, const Attempt& attempt) {
    if (kind == RegisterKind::deregister) {
        registered_ = false;
        last_authorization_.clear();
        for (const SetId id : link_.sets()) remove_set(id, "deregistered");
        tls_server_list_.clear();
        link_.close_tls();
        current_ = old_ = kClear;
        return;
    }
    registered_ = true;
    service_route_ = response.list("Service-Route");
    associated_uris_ = response.list("P-Associated-URI");
    granted_ = config_.expires;
    for (const std::string& entry : response.list("Contact")) {
        const auto value = NameAddr::parse(entry);
        const std::string* expires = value ? value->parameters.find("expires") : nullptr;
        if (expires &&
            entry.find(link_.sent_by(attempt.set != kClear ? Path{attempt.set} : path(false))) != std::string::npos)
            granted_ = to_number<std::uint32_t>(*expires).value_or(granted_);
    }
    if (attempt.set != kClear) {
        old_ = current_;
        current_ = attempt.set;
        retire_old_sets(kind, true);
    }
    if (config_.ipsec || config_.tls != TlsUse::none) link_.close_clear();
}

// After an initial registration only the new set stays; after a re-registration the one before it stays until the
// network used the new one, or for the grace time (TS 33.203 §7.4.1a).
void Phone::retire_old_sets(RegisterKind kind, bool new_set) {
    if (!new_set) return;
    for (const SetId id : link_.sets())
        if (id != current_ && (kind == RegisterKind::initial || id != old_)) remove_set(id, "replaced");
    if (kind == RegisterKind::initial) old_ = kClear;
    if (old_ != kClear) background_.spawn(drop_set_later(old_));
}

void Phone::remove_set(SetId id, std::string_view why) {
    const SecuritySet* set = link_.find(id);
    if (!set) return;
    if (set->kernel)
        emit({{"event", "set_removed"},
              {"why", why},
              {"spi_uc", set->ue.spi_c},
              {"spi_us", set->ue.spi_s},
              {"port_uc", set->ue.port_c}});
    link_.remove_set(id);
}

}  // namespace gmgate::peers
