#include "daemon/operate/diagnose.h"

#include <algorithm>
#include <array>

#include <fmt/chrono.h>
#include <fmt/format.h>

namespace gmgate::daemon {
namespace {

std::string clock_text(WallTime time) {
    return fmt::format("{:%H:%M:%S} UTC", fmt::gmtime(std::chrono::system_clock::to_time_t(time)));
}
std::string duration_text(std::chrono::seconds time) {
    const auto s = time.count();
    return s < 120      ? fmt::format("{} s", s)
           : s < 7200   ? fmt::format("{} min", s / 60)
           : s < 172800 ? fmt::format("{} h", s / 3600)
                        : fmt::format("{} d {} h", s / 86400, s % 86400 / 3600);
}
std::string spi_text(Spi spi) { return fmt::format("0x{:08x}", spi.value); }

// Text that came from the network stands in quotes and without what a terminal would obey.
std::string in_quotes(std::string_view text) {
    std::string out = "\"";
    for (const char c : text.substr(0, 200)) out += (c >= 0x20 && c < 0x7f && c != '"') ? c : '?';
    return out + (text.size() > 200 ? "...\"" : "\"");
}

const CheckVerdict* failed_check(const DecisionRecord& record) {
    const auto at = std::ranges::find(record.checks, false, &CheckVerdict::passed);
    return at == record.checks.end() ? nullptr : &*at;
}

bool is_challenge(const DecisionRecord& record) { return record.answer == 401 && record.set.value != 0; }

struct Case {
    const Evidence& e;
    const DecisionRecord* last = nullptr;       ///< newest record
    const DecisionRecord* challenge = nullptr;  ///< newest 401 with a set
    const SetEvidence* challenged_set = nullptr;
};

Verdict verdict(Cause cause, std::string paragraph) { return {cause, std::move(paragraph), {}}; }

std::string challenge_words(const Case& c) {
    return fmt::format("The phone at {} offered {} and {} was chosen; the 401 left at {} with its SAs installed",
                       c.last->ue, c.challenge->offer.empty() ? "nothing" : in_quotes(c.challenge->offer),
                       c.challenge->choice, clock_text(c.challenge->time));
}

const Sighting* newest(const Evidence& e, Sighting::Kind kind) {
    const Sighting* found = nullptr;
    for (const auto& s : e.sightings)
        if (s.kind == kind && (!found || s.last > found->last)) found = &s;
    return found;
}

std::string inbound_counts(const SetEvidence& set) {
    std::string words;
    for (const auto& sa : set.sas)
        if (sa.sa.direction == xfrm::Direction::in)
            words +=
                fmt::format("{}SA {} has {} packets", words.empty() ? "" : ", ", spi_text(sa.sa.id.spi), sa.packets);
    return words.empty() ? "the kernel did not tell its counters" : words;
}

// ------------------------------------------------------------------------------ the newest REGISTER was refused by the
// gateway

/// The agreement itself: what it offers, and what it says of it afterwards (RFC 3329, TS 33.203 §7.2).
std::optional<Verdict> refused_agreement(const Case& c, const std::string& check, const std::string& detail,
                                         const std::string& start) {
    const auto& r = *c.last;
    const auto is = [&](std::string_view name) { return check == name; };
    if (is("security-client") && !r.offer.empty() && r.over == "unprotected")
        return verdict(
            Cause::algorithms,
            start +
                fmt::format(
                    "it offers only what this interface does not allow: {} ({}).{} Allow one of its algorithms in the ims-aka-profile, or change the phone's profile.",
                    in_quotes(r.offer), detail,
                    c.e.refused_algorithms.empty() ? "" : " The profile refuses " + c.e.refused_algorithms + "."));
    if ((is("security-client") || is("sec-agree")) && r.offer.empty() && (r.answer == 421 || r.answer == 494))
        return verdict(
            Cause::no_offer,
            start + "it sends no Security-Client and this interface demands an agreement: " + detail +
                ". Switch sec-agree on in the phone, or set no-security-client = \"forward\" for phones that use none.");
    if (is("security-verify"))
        return verdict(
            Cause::verify_mismatch,
            start + "its Security-Verify is not what was sent to it (" + detail +
                "): somebody between altered the offer (bidding down), or the phone writes the list in its own way. "
                "With ignore-q = true the q values do not count.");
    if (is("security-client"))
        return verdict(
            Cause::client_mismatch,
            start + "its Security-Client has changed since the challenge (" + detail +
                "): somebody between altered it, or the phone chose other SPIs or ports without starting anew.");
    return std::nullopt;
}

/// Who it says that it is.
std::optional<Verdict> refused_identity(const std::string& check, const std::string& detail, const std::string& start) {
    if (check == "authorization")
        return verdict(
            Cause::identity_mismatch,
            start + detail +
                ". The SAs belong to another private identity: the phone must register this one by an agreement of its own.");
    if (check == "refresh-authorization")
        return verdict(Cause::identity_mismatch,
                       start + detail +
                           ". The phone's software is at fault, or the core changed its realm under registered phones: "
                           "they register anew, or refresh-authorization leaves that field out.");
    return std::nullopt;
}

std::optional<Verdict> refused_here(const Case& c) {
    const auto* check = failed_check(*c.last);
    if (!check) return std::nullopt;
    const auto& r = *c.last;
    const auto start = fmt::format("Its last REGISTER, from {} at {}, got {}: ", r.ue, clock_text(r.time), r.answer);
    const auto is = [&](std::string_view name) { return check->check == name; };
    if (r.answer == 400)
        return verdict(
            Cause::bad_request,
            start + check->detail +
                ". The REGISTER itself is wrong; the phone's software is at fault, or something on the way that rewrites SIP (an ALG).");
    if (is("via"))
        return verdict(
            Cause::nat,
            start + "it is behind NAT, or its Via is wrong: " + check->detail +
                ". IPsec in transport mode cannot pass an address translation: use an access without NAT "
                "(a UPF or container that masquerades can route to the gateway instead; a separate APN gives "
                "phones routable addresses), IPv6, or mechanism tls; for phones that offer mod=UDP-enc-tun "
                "set nat-traversal = \"on\".");
    if (is("nat-moved"))
        return verdict(
            Cause::nat_moved,
            fmt::format("At {} its packets came from {}: {}. Annex M of TS 33.203 knows no such move, so the "
                        "phone must register anew; most do so when their requests time out. Often: look "
                        "whether its NAT has several public addresses and changes between them.",
                        clock_text(r.time), r.ue, check->detail));
    if (auto agreement = refused_agreement(c, check->check, check->detail, start)) return agreement;
    if (auto identity = refused_identity(check->check, check->detail, start)) return identity;
    if (is("core"))
        return verdict(
            Cause::core_unreachable,
            start + "the core does not answer (" + check->detail +
                "). Look at next-hop in [core], at the route to it and at the core itself; the phone is not at fault.");
    if (is("ck-ik"))
        return verdict(
            Cause::no_keys,
            start + "the core's 401 carries no ck and ik, so no SA can be made (" + check->detail +
                "). The S-CSCF must challenge this user with AKAv1-MD5 and pass ck and ik in WWW-Authenticate (TS 24.229 5.4.1.2.1); "
                "a user with plain digest needs mechanism tls.");
    if (is("limit") && check->detail.find("authentications") != std::string::npos)
        return verdict(Cause::limit,
                       start + check->detail +
                           ". The core was spared: somebody floods the gateway with REGISTERs in clear (gmctl status "
                           "counts them as core_spared), or that limit is too small for this load.");
    if (is("limit") || is("draining"))
        return verdict(
            Cause::limit,
            start + check->detail + ". It may come back later; raise the limit in [limits] if this is a normal load.");
    if (is("kernel"))
        return verdict(Cause::kernel,
                       start + check->detail + ". Look at gmctl kernel and at other users of IPsec on this machine.");
    if (r.answer == 420) return verdict(Cause::option_refused, start + check->detail + ".");
    if (is("feature"))
        return verdict(Cause::option_refused,
                       start + check->detail + ". Enable sec-agree-feature, or let the phone come over TLS.");
    return verdict(Cause::bad_request, start + check->detail + ".");
}

// ------------------------------------------------------------------------------------------- the core refused after
// the answer

std::optional<Verdict> refused_by_core(const Case& c) {
    const auto& r = *c.last;
    if (r.core_status < 300) return std::nullopt;
    const bool answered = r.over.starts_with("temporary");
    if (answered && (r.core_status == 401 || r.core_status == 403))
        return verdict(
            Cause::wrong_res,
            fmt::format(
                "The phone's answer came over the SAs, so it derived the right keys, and the core refused it with {} at {}: the RES in its digest response is wrong for this challenge. "
                "Compare K, OPc and the sequence number of the SIM with the HSS, and the realm and password handling of the phone.",
                r.core_status, clock_text(r.time)));
    if (r.core_status == 401) return std::nullopt;
    return verdict(
        Cause::declined,
        fmt::format(
            "The core declined the REGISTER of {} with {}: it does not know the user, or the user may not register here. The gateway passed it on as {}.",
            clock_text(r.time), r.core_status, r.answer));
}

// ------------------------------------------------------------------------------------------------------- the core is
// slow

std::optional<Verdict> pending(const Case& c) {
    if (c.e.pending.empty()) return std::nullopt;
    const auto& p = c.e.pending.front();
    const auto waited = std::chrono::duration_cast<std::chrono::seconds>(c.e.now - p.since);
    if (c.last && waited < kCorePatience) return std::nullopt;  // what is known says more
    if (c.last && failed_check(*c.last) && failed_check(*c.last)->check == "core")
        return std::nullopt;  // it was silent the last time as well
    return verdict(
        Cause::core_pending,
        fmt::format(
            "Its REGISTER of {}, from {} over {}, was passed to the core, which has not answered for {} s. Ask again in some seconds; if this lasts, look at next-hop in [core], at the route to it and at the core itself.{}",
            clock_text(p.since), p.ue, p.over, waited.count(),
            c.e.is_registered ? " The registration that it has goes on." : ""));
}

// ------------------------------------------------------------------------------------ challenged: what came after the
// 401?

// A network delivers a packet twice now and then; a phone that has begun to count anew has nothing but replays until it
// has caught up.
std::optional<Verdict> replayed(const Case& c) {
    for (const auto& set : c.e.sets) {
        if (!set.is_alive || !(set.in_use || set.state == SetState::temporary)) continue;
        if (set.replays() < 3 || set.replays() * std::uint64_t{10} < set.inbound_packets()) continue;
        return verdict(
            Cause::replay,
            fmt::format(
                "{} ESP packets on its SAs were replays or came too late for the replay window, and {} passed; the kernel drops the former. The phone restarted its sequence numbers on a living SA (its IPsec was set up again with the old keys), "
                "or the network delivers packets twice or far out of order. Its requests time out until it registers anew.",
                set.replays(), set.inbound_packets()));
    }
    return std::nullopt;
}

std::optional<Verdict> stale(const Case& c) {
    const auto* s = newest(c.e, Sighting::Kind::unknown_spi);
    if (!s) return std::nullopt;
    const bool was_its_own = std::ranges::find(c.e.own_spis_before, s->spi) != c.e.own_spis_before.end();
    if (!was_its_own && c.e.is_registered) return std::nullopt;  // another phone behind the same address, most likely
    return verdict(
        Cause::stale_sa,
        fmt::format(
            "ESP arrived from {} for SPI {}, which is not ours ({} packet{}, last at {}): {}. The kernel drops it. The phone must register anew in clear; most do so when their requests time out, "
            "at the latest when the registration expires; switching flight mode on and off helps at once.",
            s->source.address.to_string(), spi_text(s->spi), s->count, s->count == 1 ? "" : "s", clock_text(s->last),
            was_its_own ? "a stale SA of this phone's earlier registration"
                        : "a stale SA, from before this gateway started or of another phone behind this address"));
}

std::optional<Verdict> clear(const Case& c) {
    const auto* s = newest(c.e, Sighting::Kind::clear_protected);
    if (!s) return std::nullopt;
    if (s->impi.empty() && c.e.is_registered) return std::nullopt;
    return verdict(
        Cause::clear_to_protected,
        fmt::format(
            "It sends in clear to the protected port: {} {} packet{} without ESP from {} to {}, last at {}{}. The kernel drops them. The phone did not put its own SAs into place "
            "(its kernel refused them, or its IPsec is switched off); look at the phone's log.",
            s->count, s->is_tcp ? "TCP" : "UDP", s->count == 1 ? "" : "s", s->source.to_string(),
            s->destination.to_string(), clock_text(s->last), s->impi.empty() ? "" : ", naming " + in_quotes(s->impi)));
}

std::optional<Verdict> challenged(const Case& c) {
    if (!c.challenge || !c.challenged_set) return std::nullopt;
    const auto& set = *c.challenged_set;
    if (const auto failures = set.integrity_failures(); failures != 0 && set.inbound_packets() == 0)
        return verdict(
            Cause::integrity,
            fmt::format(
                "{}. {} ESP packet{} failed the integrity check on {}: the phone derived other keys than the core gave us. Its SIM and the HSS disagree (K, OPc, AMF), or the core's ik and ck are not those of this "
                "challenge.",
                challenge_words(c), failures, failures == 1 ? "" : "s",
                set.is_alive ? "these SAs" : "these SAs, which have ended since"));
    if (auto in_clear = clear(c)) return in_clear;
    if (set.inbound_packets() == 0) {
        const bool too_early = set.is_alive && c.e.now - c.challenge->time < kAnswerPatience;
        if (too_early)
            return verdict(Cause::waiting,
                           challenge_words(c) + ". The phone has not answered yet; ask again in some seconds.");
        return verdict(
            Cause::no_answer,
            fmt::format(
                "{}; the phone sent no ESP packet ({}): it did not accept the challenge (wrong AUTN: K, OPc or sequence number of the SIM do not fit the HSS), it could not install its SAs, or its packets are "
                "blocked on the way (ESP is IP protocol 50, no port forwarding helps).",
                challenge_words(c), inbound_counts(set)));
    }
    return std::nullopt;
}

std::vector<std::string> facts(const Case& c) {
    std::vector<std::string> lines;
    const auto& records = c.e.records;
    const auto first = records.size() > 6 ? records.end() - 6 : records.begin();
    for (auto r = first; r != records.end(); ++r)
        lines.push_back(
            fmt::format("{} REGISTER from {} over {}: offer {}, policy {}, chosen {}{}; core {}, answer {} ({})",
                        clock_text(r->time), r->ue, r->over, r->offer.empty() ? "none" : in_quotes(r->offer), r->policy,
                        r->choice.empty() ? "-" : r->choice, r->rule.empty() ? "" : " because " + r->rule,
                        r->core_status, r->answer, r->why));
    for (const auto& p : c.e.pending)
        lines.push_back(
            fmt::format("{} REGISTER from {} over {}: waits for the core", clock_text(p.since), p.ue, p.over));
    for (const auto& set : c.e.sets) {
        lines.push_back(
            fmt::format("set {} {}{}: {}", set.number.value, to_string(set.state),
                        set.is_alive ? "" : fmt::format(", ended {}", set.ended ? clock_text(*set.ended) : "before"),
                        set.sas.empty() ? "no SA in the kernel" : ""));
        for (const auto& sa : set.sas)
            lines.push_back(fmt::format(
                "  {} SA {} {} -> {}: {} packets, {} octets, {} integrity failures, {} replays, {} too late",
                sa.sa.direction == xfrm::Direction::in ? "in " : "out", spi_text(sa.sa.id.spi),
                sa.sa.source.to_string(), sa.sa.destination.to_string(), sa.packets, sa.bytes, sa.integrity_failures,
                sa.replay_drops, sa.replay_window_drops));
    }
    for (const auto& s : c.e.sightings)
        lines.push_back(s.kind == Sighting::Kind::unknown_spi
                            ? fmt::format("seen on the wire: ESP from {} for unknown SPI {}, {} times, {} to {}",
                                          s.source.address.to_string(), spi_text(s.spi), s.count, clock_text(s.first),
                                          clock_text(s.last))
                            : fmt::format("seen on the wire: {} in clear from {} to {}{}, {} times, {} to {}",
                                          s.is_tcp ? "TCP" : "UDP", s.source.to_string(), s.destination.to_string(),
                                          s.impi.empty() ? "" : " naming " + in_quotes(s.impi), s.count,
                                          clock_text(s.first), clock_text(s.last)));
    for (const auto* name :
         {"XfrmInNoStates", "XfrmInTmplMismatch", "XfrmInStateProtoError", "XfrmInStateSeqError", "XfrmOutNoStates"})
        if (const auto value = value_of(c.e.xfrm, name); value != 0)
            lines.push_back(fmt::format("kernel, all phones together: {} {}", name, value));
    return lines;
}

Verdict judge(const Case& c) {
    const auto& e = c.e;
    if (auto v = pending(c)) return *v;
    if (!c.last && e.is_registered) {
        if (auto v = replayed(c)) return *v;
        return verdict(
            Cause::registered,
            fmt::format(
                "It is registered, since before this process of the gateway began; the registration runs for another {}{}. It has sent no REGISTER to this process.",
                duration_text(e.registration_expires_in),
                e.tls_remote ? fmt::format(", over the TLS connection from {}", e.tls_remote->to_string()) : ""));
    }
    if (!c.last) {
        if (auto in_clear = clear(c)) return *in_clear;
        if (auto old = stale(c)) return *old;
        return verdict(
            Cause::unknown_phone,
            fmt::format(
                "No REGISTER of {} has arrived since this gateway started (or it was long ago and other phones' have taken its place). The phone does not reach the unprotected port: look at its P-CSCF address "
                "(PCO, DNS), at the route and at firewalls for port 5060 UDP and TCP; or its IMPI is spelled differently.",
                e.impi.value));
    }
    const bool accepted = c.last->answer >= 200 && c.last->answer < 300;
    if (e.is_registered && (accepted || is_challenge(*c.last) || !failed_check(*c.last))) {
        if (!accepted)
            if (auto v = challenged(c)) return *v;
        const bool has_traffic = e.tls_remote || std::ranges::any_of(e.sets, [](const SetEvidence& s) {
                                     return s.is_alive && s.inbound_packets() > 0;
                                 });
        if (auto v = replayed(c)) return *v;
        if (auto old = stale(c)) return *old;
        if (auto in_clear = clear(c)) return *in_clear;
        return verdict(
            Cause::registered,
            fmt::format(
                "It is registered: the last REGISTER came from {} at {} and got {}; the registration runs for another {}{}.",
                c.last->ue, clock_text(c.last->time), c.last->answer, duration_text(e.registration_expires_in),
                e.tls_remote  ? fmt::format(", over the TLS connection from {}", e.tls_remote->to_string())
                : has_traffic ? ", and its SAs carry packets"
                              : ", though its SAs have carried no packet so far"));
    }
    if (auto v = refused_here(c)) return *v;
    if (auto v = refused_by_core(c)) return *v;
    if (auto v = challenged(c)) return *v;
    if (auto v = replayed(c)) return *v;
    if (auto v = stale(c)) return *v;
    if (auto v = clear(c)) return *v;
    if (accepted)
        return verdict(
            Cause::undecided,
            fmt::format(
                "It was registered (last REGISTER at {}: {}) and is not any more: the registration ran out, was ended, or its SAs were lost. It has not tried again since.",
                clock_text(c.last->time), c.last->why));
    return verdict(
        Cause::undecided,
        fmt::format(
            "Its last REGISTER, from {} at {}, got {}: {}. None of the usual causes fits; the evidence follows.",
            c.last->ue, clock_text(c.last->time), c.last->answer, c.last->why));
}

}  // namespace

std::uint64_t SetEvidence::inbound_packets() const {
    std::uint64_t n = 0;
    for (const auto& sa : sas)
        if (sa.sa.direction == xfrm::Direction::in) n += sa.packets;
    return n;
}
std::uint32_t SetEvidence::integrity_failures() const {
    std::uint32_t n = 0;
    for (const auto& sa : sas) n += sa.integrity_failures;
    return n;
}
std::uint32_t SetEvidence::replays() const {
    std::uint32_t n = 0;
    for (const auto& sa : sas) n += sa.replay_drops + sa.replay_window_drops;
    return n;
}

std::string_view to_string(Cause cause) {
    switch (cause) {
        case Cause::unknown_phone:
            return "unknown-phone";
        case Cause::registered:
            return "registered";
        case Cause::no_answer:
            return "no-answer";
        case Cause::waiting:
            return "waiting";
        case Cause::integrity:
            return "integrity";
        case Cause::replay:
            return "replay";
        case Cause::stale_sa:
            return "stale-sa";
        case Cause::clear_to_protected:
            return "clear-to-protected";
        case Cause::nat:
            return "nat";
        case Cause::nat_moved:
            return "nat-moved";
        case Cause::algorithms:
            return "algorithms";
        case Cause::no_offer:
            return "no-offer";
        case Cause::option_refused:
            return "option-refused";
        case Cause::verify_mismatch:
            return "verify-mismatch";
        case Cause::client_mismatch:
            return "client-mismatch";
        case Cause::identity_mismatch:
            return "identity-mismatch";
        case Cause::core_pending:
            return "core-pending";
        case Cause::core_unreachable:
            return "core-unreachable";
        case Cause::no_keys:
            return "no-keys";
        case Cause::wrong_res:
            return "wrong-res";
        case Cause::declined:
            return "declined";
        case Cause::limit:
            return "limit";
        case Cause::kernel:
            return "kernel";
        case Cause::bad_request:
            return "bad-request";
        case Cause::undecided:
            return "undecided";
    }
    return "?";
}

Verdict diagnose(const Evidence& evidence) {
    Case c{evidence};
    if (!evidence.records.empty()) c.last = &evidence.records.back();
    // The newest challenge of which a set is known.
    for (auto r = evidence.records.rbegin(); r != evidence.records.rend() && !c.challenge; ++r)
        if (is_challenge(*r)) c.challenge = &*r;
    if (c.challenge)
        for (const auto& set : evidence.sets)
            if (set.number == c.challenge->set) c.challenged_set = &set;
    auto result = judge(c);
    result.evidence = facts(c);
    return result;
}

}  // namespace gmgate::daemon
