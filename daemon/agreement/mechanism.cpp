#include "daemon/agreement/mechanism.h"

#include <algorithm>

#include <fmt/format.h>

namespace gmgate::daemon {
namespace {

constexpr std::uint32_t kFirstUsableSpi = 256;  // RFC 4303 §2.1: 1..255 are reserved

std::string name_of(AlgorithmPair pair) { return fmt::format("{}/{}", to_string(pair.alg), to_string(pair.ealg)); }

// Why an ipsec-3gpp entry can never be used, whatever the policy (B-11, B-30, B-62); empty when it can.
std::string defect_of(const sip::Ipsec3gpp& entry, xfrm::Mode mode) {
    if (!entry.alg) return "alg is missing or unknown";
    if (!entry.ealg) return "ealg is unknown";
    if (!entry.prot_esp) return "prot is not esp";
    if (mode == xfrm::Mode::transport && !entry.mod_trans) return "mod is not trans";
    if (mode == xfrm::Mode::udp_enc_tun && !entry.mod_udp_enc_tun) return "mod is not UDP-enc-tun";
    if (!is_valid({*entry.alg, *entry.ealg}))
        return fmt::format("{} is no valid combination", name_of({*entry.alg, *entry.ealg}));
    if (!entry.spi_c || !entry.spi_s || !entry.port_c || !entry.port_s)
        return "spi-c, spi-s, port-c or port-s is missing";
    if (entry.spi_c == entry.spi_s) return "spi-c equals spi-s";
    if (entry.port_c == entry.port_s) return "port-c equals port-s";
    if (entry.spi_c->value < kFirstUsableSpi || entry.spi_s->value < kFirstUsableSpi)
        return "an SPI below 256 is reserved";
    return {};
}

std::string_view to_word(xfrm::Mode mode) { return mode == xfrm::Mode::udp_enc_tun ? "UDP-enc-tun" : "trans"; }

struct Usable {
    AlgorithmPair pair;
    sip::Ipsec3gpp entry;
};

// All usable ipsec-3gpp entries; what is wrong with the others goes into `why`.
std::vector<Usable> usable_entries(const sip::SecurityList& offer, xfrm::Mode mode, std::string& why) {
    std::vector<Usable> usable;
    for (const auto& mechanism : offer.mechanisms()) {
        const auto entry = mechanism.ipsec_3gpp();
        if (!entry || mechanism.is_mediasec()) continue;
        if (const auto defect = defect_of(*entry, mode); !defect.empty())
            why += fmt::format("{}{}", why.empty() ? "" : "; ", defect);
        else usable.push_back({{*entry->alg, *entry->ealg}, *entry});
    }
    return usable;
}

std::expected<Choice, NoCommonMechanism> choose_ipsec(const sip::SecurityList& offer, const Policy& policy) {
    std::string why;
    const auto usable = usable_entries(offer, policy.mode, why);
    const auto allowed = policy.allowed_pairs();
    for (std::size_t rank = 0; rank < allowed.size(); ++rank) {
        const auto at = std::ranges::find(usable, allowed[rank], &Usable::pair);
        if (at == usable.end()) continue;
        return Choice{MechanismKind::ipsec_3gpp, at->pair, at->entry,
                      fmt::format("{} is number {} of the {} pairs allowed here and the first that the phone offers{}",
                                  name_of(at->pair), rank + 1, allowed.size(),
                                  policy.mode == xfrm::Mode::udp_enc_tun ? "; it is behind NAT: mod=UDP-enc-tun" : ""),
                      policy.mode};
    }
    for (const auto& entry : usable)
        why += fmt::format("{}{} is not allowed here", why.empty() ? "" : "; ", name_of(entry.pair));
    return std::unexpected(NoCommonMechanism{why.empty() ? "no ipsec-3gpp entry" : why});
}

std::string q_value(std::size_t rank) { return fmt::format("0.{}", 9 - std::min<std::size_t>(rank, 8)); }

std::string ipsec_entry(AlgorithmPair pair, xfrm::Mode mode, const OwnParameters& own, const std::string& q) {
    return fmt::format("ipsec-3gpp;{}prot=esp;mod={};spi-c={};spi-s={};port-c={};port-s={};alg={};ealg={}",
                       q.empty() ? "" : "q=" + q + ";", to_word(mode), own.spi_pc.value, own.spi_ps.value,
                       own.port_pc.value, own.port_ps.value, to_string(pair.alg), to_string(pair.ealg));
}

void append(std::string& list, const std::string& entry) { list += list.empty() ? entry : ", " + entry; }

}  // namespace

std::string_view to_string(MechanismKind kind) {
    switch (kind) {
        case MechanismKind::none:
            return "none";
        case MechanismKind::ipsec_3gpp:
            return "ipsec-3gpp";
        case MechanismKind::tls:
            return "tls";
    }
    return "?";
}

bool offers_udp_enc_tun(const sip::SecurityList& offer) {
    return std::ranges::any_of(offer.mechanisms(), [](const auto& mechanism) {
        const auto entry = mechanism.ipsec_3gpp();
        return entry && entry->mod_udp_enc_tun;
    });
}

Policy Policy::of(const SipInterface& interface, const ImsAkaProfile* profile, bool over_tls) {
    Policy policy;
    const bool by_pref = interface.sec_agree_feature && allows_ipsec(interface.sec_agree_pref);
    const bool as_before = !interface.sec_agree_feature && interface.ims_aka_feature;
    policy.ipsec = profile && (by_pref || as_before) && !over_tls;
    policy.tls = interface.sec_agree_feature && allows_tls(interface.sec_agree_pref);
    policy.tls_first = over_tls || interface.sec_agree_pref == SecAgreePref::tls ||
                       interface.sec_agree_pref == SecAgreePref::tls_ipsec3gpp;
    policy.confidentiality = interface.confidentiality;
    if (profile) policy.preference = profile->preference;
    return policy;
}

std::vector<AlgorithmPair> Policy::allowed_pairs() const {
    std::vector<AlgorithmPair> pairs;
    if (!ipsec) return pairs;
    for (const auto pair : preference) {
        if (confidentiality == Confidentiality::required && !is_confidential(pair)) continue;
        if (confidentiality == Confidentiality::off && is_confidential(pair)) continue;
        pairs.push_back(pair);
    }
    return pairs;
}

std::expected<Choice, NoCommonMechanism> choose(const sip::SecurityList& offer, const Policy& policy) {
    const bool offers_tls =
        std::ranges::any_of(offer.mechanisms(), [](const auto& m) { return m.is("tls") && !m.is_mediasec(); });
    const Choice tls{MechanismKind::tls,
                     {},
                     {},
                     policy.tls_first ? "tls is preferred here and offered"
                                      : "ipsec-3gpp is not usable, tls is allowed and offered"};
    if (policy.tls && policy.tls_first && offers_tls) return tls;
    std::string why = "ipsec-3gpp is not allowed here";
    if (policy.ipsec) {
        auto ipsec = choose_ipsec(offer, policy);
        if (ipsec) return ipsec;
        why = ipsec.error().why;
    }
    if (policy.tls && offers_tls) return tls;
    why += policy.tls ? "; tls is not offered" : (offers_tls ? "; tls is not allowed here" : "");
    return std::unexpected(NoCommonMechanism{why});
}

std::string security_server(const Choice& choice, const Policy& policy, const SipInterface& interface,
                            const OwnParameters& own) {
    const bool ipsec = choice.mechanism == MechanismKind::ipsec_3gpp;
    if (interface.security_server == SecurityServerMode::selected) {
        const std::string q = interface.security_server_q ? "0.1" : "";
        if (ipsec) return ipsec_entry(choice.algorithms, choice.mode, own, q);
        return q.empty() ? "tls" : "tls;q=" + q;
    }
    std::string list;
    std::size_t rank = 0;
    append(list,
           ipsec ? ipsec_entry(choice.algorithms, choice.mode, own, q_value(rank++)) : "tls;q=" + q_value(rank++));
    if (ipsec)
        for (const auto pair : policy.allowed_pairs())
            if (pair != choice.algorithms && rank < 8)
                append(list, ipsec_entry(pair, choice.mode, own, q_value(rank++)));
    if (ipsec && policy.tls) append(list, "tls;q=0.05");
    return list;
}

std::string supported_mechanisms(const Policy& policy) {
    std::string list;
    if (policy.tls && policy.tls_first) append(list, "tls;q=0.95");
    std::size_t rank = 0;
    for (const auto pair : policy.allowed_pairs()) {
        append(list,
               fmt::format("ipsec-3gpp;alg={};ealg={};q={}", to_string(pair.alg), to_string(pair.ealg), q_value(rank)));
        if (++rank == 9) break;
    }
    if (policy.tls && !policy.tls_first) append(list, "tls;q=0.05");
    return list;
}

}  // namespace gmgate::daemon
