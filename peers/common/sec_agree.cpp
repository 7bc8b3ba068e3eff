#include "sec_agree.h"

#include "text.h"

#include <algorithm>

namespace gmgate::peers {
namespace {

template <class T>
std::optional<T> number(const SecMechanism& mechanism, std::string_view parameter) {
    const std::string* value = mechanism.parameters.find(parameter);
    return value ? to_number<T>(*value) : std::nullopt;
}

bool value_is(const SecMechanism& mechanism, std::string_view parameter, std::string_view expected) {
    const std::string* value = mechanism.parameters.find(parameter);
    return !value || iequals(*value, expected);
}

// q in thousandths; no q counts as most preferred, so that a single mechanism without q is simply taken.
int q_of(const SecMechanism& mechanism) {
    const std::string* value = mechanism.parameters.find("q");
    if (!value || value->empty()) return 1000;
    if (value->front() == '1') return 1000;
    std::string digits = value->size() > 2 ? value->substr(2, 3) : "";
    digits.resize(3, '0');
    return to_number<int>(digits).value_or(0);
}

Result<SecEnd> network_end(const SecMechanism& mechanism, const SecEnd& ue) {
    const auto spi_c = number<std::uint32_t>(mechanism, "spi-c");
    const auto spi_s = number<std::uint32_t>(mechanism, "spi-s");
    const auto port_c = number<std::uint16_t>(mechanism, "port-c");
    const auto port_s = number<std::uint16_t>(mechanism, "port-s");
    if (!spi_c || !spi_s || !port_c || !port_s) return fail("Security-Server lacks spi-c, spi-s, port-c or port-s");
    for (const std::uint32_t spi : {*spi_c, *spi_s}) {
        if (spi < 256) return fail("Security-Server uses the reserved SPI {}", spi);  // RFC 4303 §2.1
        if (spi == ue.spi_c || spi == ue.spi_s) return fail("Security-Server repeats the phone's SPI {}", spi);  // B-11
    }
    if (*spi_c == *spi_s) return fail("Security-Server has spi-c equal to spi-s");
    for (const std::uint16_t port : {*port_c, *port_s})
        if (port == 0 || port == 5060 || port == 5061)
            return fail("Security-Server names {} as a protected port", port);  // B-13
    if (*port_c == *port_s) return fail("Security-Server has port-c equal to port-s");
    return SecEnd{*spi_c, *spi_s, *port_c, *port_s};
}

std::string written(std::string_view mechanism, AlgPair pair, const SecEnd& ue, std::string_view mode) {
    std::string out(mechanism);
    const auto fill = [&out](std::string_view word, const std::string& value) {
        if (const auto at = out.find(word); at != std::string::npos) out.replace(at, word.size(), value);
    };
    fill("{alg}", std::string(name(pair.alg)));
    fill("{ealg}", std::string(name(pair.ealg)));
    fill("{mod}", std::string(mode));
    fill("{spi-c}", std::to_string(ue.spi_c));
    fill("{spi-s}", std::to_string(ue.spi_s));
    fill("{port-c}", std::to_string(ue.port_c));
    fill("{port-s}", std::to_string(ue.port_s));
    return out;
}

}  // namespace

SecMechanism SecMechanism::parse(std::string_view text) {
    SecMechanism out;
    const auto semicolon = text.find(';');
    out.name = trim(text.substr(0, semicolon));
    if (semicolon != std::string_view::npos) out.parameters = Parameters::parse(text.substr(semicolon));
    return out;
}

std::string security_client(const std::vector<AlgPair>& offer, const SecEnd& ue, bool nat, const OfferStyle& style) {
    const bool has_mode = style.mechanism.find("{mod}") != std::string_view::npos;
    std::vector<std::string> entries;
    for (const std::string_view mode : {"trans", "UDP-enc-tun"}) {
        if (mode != "trans" && !nat) break;
        for (const AlgPair pair : offer)
            entries.push_back(written(style.mechanism, pair, ue, mode) +
                              (has_mode || mode == "trans" ? "" : fmt::format(";mod={}", mode)));
    }
    return join(entries, style.between) + std::string(style.behind);
}

Result<SecChoice> choose(const std::vector<std::string>& security_server, const std::vector<AlgPair>& offer,
                         const SecEnd& ue, bool nat) {
    if (security_server.empty()) return fail("no Security-Server");
    std::vector<SecMechanism> mechanisms;
    for (const std::string& entry : security_server) mechanisms.push_back(SecMechanism::parse(entry));
    std::ranges::stable_sort(mechanisms, std::greater<>(), q_of);
    for (const SecMechanism& mechanism : mechanisms) {
        if (!iequals(mechanism.name, "ipsec-3gpp") || !value_is(mechanism, "prot", "esp") ||
            !(value_is(mechanism, "mod", "trans") || (nat && value_is(mechanism, "mod", "UDP-enc-tun"))))
            continue;
        const std::string* alg_text = mechanism.parameters.find("alg");
        const std::string* ealg_text = mechanism.parameters.find("ealg");
        const auto alg = alg_text ? alg_from(*alg_text) : std::nullopt;
        const auto ealg = ealg_text ? ealg_from(*ealg_text) : Ealg::null;
        if (!alg || !ealg) continue;
        const AlgPair pair{*alg, *ealg};
        if (!is_valid(pair) || std::ranges::find(offer, pair) == offer.end()) continue;
        const auto network = network_end(mechanism, ue);
        if (!network) return std::unexpected(network.error());
        return SecChoice{pair, *network, !value_is(mechanism, "mod", "trans")};
    }
    return fail("Security-Server offers no algorithms that were offered by the phone");
}

}  // namespace gmgate::peers
