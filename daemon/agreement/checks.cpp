#include "daemon/agreement/checks.h"

#include <algorithm>

#include <fmt/format.h>

#include "daemon/rules/identity.h"
#include "sip/message/digest.h"
#include "sip/message/headers.h"

namespace gmgate::daemon {
namespace {

int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

bool read_key(std::string_view hex, xfrm::Key128& out) {
    if (hex.size() != 32) return false;
    const auto bytes = out.expose_for_writing(16);
    for (std::size_t i = 0; i < 16; ++i) {
        const int high = hex_digit(hex[2 * i]), low = hex_digit(hex[2 * i + 1]);
        if (high < 0 || low < 0) {
            out.clear();
            return false;
        }
        bytes[i] = static_cast<std::uint8_t>(high * 16 + low);
    }
    return true;
}

// The parts of an ipsec-3gpp list that a refresh may not change: names, algorithms, protocol, mode, port-s (G-6).
std::optional<std::string> changed_offer(const sip::SecurityList& before, const sip::SecurityList& now) {
    if (before.mechanisms().size() != now.mechanisms().size())
        return fmt::format("{} mechanisms instead of {}", now.mechanisms().size(), before.mechanisms().size());
    for (std::size_t i = 0; i < now.mechanisms().size(); ++i) {
        const auto& a = before.mechanisms()[i];
        const auto& b = now.mechanisms()[i];
        if (!sip::same_token(a.name, b.name))
            return fmt::format("mechanism {} is \"{}\" instead of \"{}\"", i + 1, b.name, a.name);
        const auto x = a.ipsec_3gpp(), y = b.ipsec_3gpp();
        if (!x || !y) continue;
        if (x->alg != y->alg || x->ealg != y->ealg || x->prot_esp != y->prot_esp || x->mod_trans != y->mod_trans ||
            x->mod_udp_enc_tun != y->mod_udp_enc_tun)
            return fmt::format("mechanism {} has other algorithms, protocol or mode", i + 1);
        if (x->port_s != y->port_s) return fmt::format("mechanism {} changes port-s", i + 1);
    }
    return std::nullopt;
}

/// The Security-Client that the set keeps as text. It was a list when it came, or when it was read from the store.
sip::SecurityList offer_of(const SaSet& set) {
    return sip::SecurityList::parse(set.security_client.text()).value_or(sip::SecurityList{});
}

std::optional<Objection> check_verify(const sip::SecurityList& verify, const SaSet& set, sip::CompareOptions options) {
    if (verify.empty()) return Objection{494, "security-verify", "Security-Verify is missing"};
    if (set.security_server == verify.to_string()) return std::nullopt;  // nearly every phone mirrors it to the letter
    const auto sent = sip::SecurityList::parse(set.security_server.text(), true);
    if (!sent) return Objection{500, "security-verify", "the stored Security-Server does not parse"};
    if (const auto what = sip::difference(*sent, verify, options))
        return Objection{494, "security-verify", "Security-Verify differs from the Security-Server sent: " + *what};
    return std::nullopt;
}

}  // namespace

Impi impi_of(const sip::Message& request, const sip::Credentials& credentials) {
    if (const auto username = credentials.username(); !username.empty()) return Impi{std::string(username)};
    const auto to = sip::NameAddr::parse(request.value(sip::HeaderId::to));
    const auto uri = to ? sip::Uri::parse(to->uri) : std::nullopt;
    if (!uri) return {};
    return Impi{uri->is_sip() ? fmt::format("{}@{}", uri->user, uri->host) : std::string(uri->user)};
}

std::optional<Objection> check_via(const sip::Message& request, const sip::Flow& flow) {
    const auto via = sip::top_via(request);
    if (!via) return Objection{400, "via", "the topmost Via does not parse"};
    const auto address = via->sent_by_address();
    if (address && *address != flow.remote.address)
        return Objection{403, "via",
                         fmt::format("Via says {}, the packet came from {}: a NAT or a forged Via",
                                     address->to_string(), flow.remote.address.to_string())};
    return std::nullopt;
}

std::optional<Objection> check_answer(const sip::SecurityList& verify, const sip::SecurityList& client,
                                      const SaSet& set, sip::CompareOptions options) {
    if (auto objection = check_verify(verify, set, options)) return objection;
    if (client.empty()) return Objection{494, "security-client", "Security-Client is missing"};
    if (set.security_client == client.to_string()) return std::nullopt;
    if (const auto what = sip::difference(offer_of(set), client))
        return Objection{494, "security-client", "Security-Client differs from the first one: " + *what};
    return std::nullopt;
}

std::optional<Objection> check_refresh(const sip::SecurityList& verify, const sip::SecurityList& client,
                                       const SaSet& set, bool client_needed, sip::CompareOptions options) {
    if (auto objection = check_verify(verify, set, options)) return objection;
    if (client.empty()) {
        if (client_needed) return Objection{494, "security-client", "Security-Client is missing"};
        return std::nullopt;
    }
    if (set.security_client == client.to_string()) return std::nullopt;
    if (const auto what = changed_offer(offer_of(set), client))
        return Objection{494, "security-client", "Security-Client changed: " + *what};
    return std::nullopt;
}

std::optional<Objection> check_identity(const sip::Credentials& credentials, const Impi& expected) {
    if (credentials.username().empty())
        return Objection{403, "authorization", "Authorization with the private identity is missing"};
    if (credentials.username() != expected.value)
        return Objection{403, "authorization",
                         "Authorization names another private identity than the one of these SAs"};
    return std::nullopt;
}

AuthorizedAs authorized_as(const sip::Credentials& credentials) {
    const auto field = [&](std::string_view name) { return std::string(credentials.get(name).value_or("")); };
    return {.realm = field("realm"), .uri = field("uri"), .algorithm = field("algorithm")};
}

std::optional<Objection> check_authorization(const sip::Credentials& credentials, const AuthorizedAs& association,
                                             const AuthorizedAs& challenged, const RefreshAuthorization& compared) {
    const auto now = authorized_as(credentials);
    const auto same_text = [](std::string_view a, std::string_view b) { return a == b; };
    const auto same_uri = [](std::string_view a, std::string_view b) { return a == b || is_same_identity(a, b); };
    const auto check = [&](bool is_compared, const char* name, std::string AuthorizedAs::*field,
                           const auto& same) -> std::optional<Objection> {
        const auto& is = now.*field;
        const auto& was = association.*field;
        const bool is_same = is.empty() || was.empty() || same(is, was) || same(is, challenged.*field);
        if (!is_compared || is_same) return std::nullopt;
        return Objection{
            403, "refresh-authorization",
            fmt::format("{} in Authorization is not that of the REGISTER that made this association", name)};
    };
    if (auto objection = check(compared.realm, "realm", &AuthorizedAs::realm, same_text)) return objection;
    if (auto objection = check(compared.uri, "uri", &AuthorizedAs::uri, same_uri)) return objection;
    return check(compared.algorithm, "algorithm", &AuthorizedAs::algorithm, sip::same_token);
}

ChallengeKeys keys_of(const sip::Message& response) {
    ChallengeKeys keys;
    response.for_each(sip::HeaderId::www_authenticate, [&](const sip::HeaderField& field) {
        const auto challenge = sip::DigestParams::parse(field.value);
        if (!challenge || keys.present) return;
        keys.present = read_key(challenge->get("ck").value_or(""), keys.ck) &&
                       read_key(challenge->get("ik").value_or(""), keys.ik);
    });
    return keys;
}

std::string_view integrity_protected(bool over_temporary, bool over_established, bool has_response) {
    if (over_temporary) return has_response ? "yes" : "no";
    return over_established ? "yes" : "no";
}

}  // namespace gmgate::daemon
