#include "daemon/config/config.h"

#include <ifaddrs.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "daemon/config/cluster.h"
#include "daemon/config/config_toml.h"
#include "daemon/config/observation.h"
#include "daemon/config/tls_settings.h"
#include "sip/message/headers.h"
#include "sip/message/limits.h"

namespace gmgate::daemon {
namespace {

constexpr std::int64_t kDay = 86400;

void read_seconds(Section& section, std::string_view key, std::chrono::seconds& out, std::int64_t least,
                  std::int64_t most) {
    std::int64_t value = out.count();
    section.number(key, value, least, most);
    out = std::chrono::seconds{value};
}

constexpr std::size_t kEndpoints = 16;  // of one key

std::optional<Endpoint> endpoint_of(Section& section, std::string_view key, const std::string& text) {
    if (const auto endpoint = Endpoint::parse(text); endpoint && endpoint->port.value != 0) return endpoint;
    section.mistake(
        key, fmt::format("\"{}\" is not \"ADDRESS:PORT\" (IPv6: \"[ADDRESS]:PORT\"); names are not looked up", text));
    return std::nullopt;
}

void read_endpoint(Section& section, std::string_view key, Endpoint& out) {
    std::string text;
    section.text(key, text);
    if (text.empty()) return;
    out = endpoint_of(section, key, text).value_or(out);
}

// One, or a list of them.
void read_ranges(Section& section, std::string_view key, std::vector<AddressRange>& out) {
    constexpr std::size_t kRanges = 256;
    std::vector<std::string> texts;
    section.texts(key, texts);
    if (texts.size() > kRanges) return section.mistake(key, fmt::format("at most {} addresses", kRanges));
    for (const std::string& text : texts) {
        if (const auto range = AddressRange::parse(text)) out.push_back(*range);
        else
            section.mistake(key, fmt::format("\"{}\" is neither an address nor a range such as \"10.2.0.0/16\" or "
                                             "\"2001:db8::/32\", whose bits behind the length are zero",
                                             text));
    }
}

// One, or a list of them.
void read_endpoints(Section& section, std::string_view key, std::vector<Endpoint>& out) {
    std::vector<std::string> texts;
    section.texts(key, texts);
    if (texts.size() > kEndpoints) return section.mistake(key, fmt::format("at most {} addresses", kEndpoints));
    for (const std::string& text : texts)
        if (const auto endpoint = endpoint_of(section, key, text)) out.push_back(*endpoint);
}

// A member of a list with which no member of the other one makes a pair that may be chosen: said, as it looks like an
// offer and never is one (B-62).
template <class Word, class Parse, class Member>
void warn_of_lonely(Section& section, std::string_view list, std::string_view other, const std::vector<Word>& words,
                    const Parse& parse, Member member, const std::vector<AlgorithmPair>& pairs) {
    if (!section.has(list)) return;
    for (const auto& word : words) {
        const auto algorithm = parse(word);
        if (!algorithm || std::ranges::find(pairs, *algorithm, member) != pairs.end()) continue;
        std::string partners;
        for (const auto& pair : kDefaultPreference)
            if (pair.*member == *algorithm) {
                const std::string_view partner = list == "encr-alg-list" ? to_string(pair.alg) : to_string(pair.ealg);
                partners += fmt::format("{}{}", partners.empty() ? "" : " or ", partner);
            }
        section.warn(list, fmt::format("\"{}\" is never used: it pairs with {}, which {} does not allow; add that, or "
                                       "take \"{}\" out",
                                       word, partners, other, word));
    }
}

// encr-alg-list and auth-alg-list choose among the valid pairs; the order stays the gateway's own, strongest first
// (B-32).
void read_algorithm_lists(Section& section, ImsAkaProfile& profile) {
    std::vector<std::string> encr{"aes-gcm", "aes-cbc", "des-ede3-cbc", "null"},
        auth{"hmac-sha-1-96", "aes-gmac", "hmac-md5-96", "null"};
    section.texts("encr-alg-list", encr);
    section.texts("auth-alg-list", auth);
    std::set<Ealg> ealgs;
    std::set<Alg> algs;
    for (const auto& word : encr) {
        if (const auto ealg = parse_ealg(word)) ealgs.insert(*ealg);
        else
            section.mistake("encr-alg-list",
                            fmt::format("\"{}\" is none of aes-gcm, aes-cbc, des-ede3-cbc, null{}", word,
                                        did_you_mean(word, {"aes-gcm", "aes-cbc", "des-ede3-cbc", "null"})));
    }
    for (const auto& word : auth) {
        if (const auto alg = parse_alg(word)) algs.insert(*alg);
        else
            section.mistake("auth-alg-list",
                            fmt::format("\"{}\" is none of hmac-sha-1-96, aes-gmac, hmac-md5-96, null{}", word,
                                        did_you_mean(word, {"hmac-sha-1-96", "aes-gmac", "hmac-md5-96", "null"})));
    }
    for (const auto& pair : kDefaultPreference)
        if (algs.contains(pair.alg) && ealgs.contains(pair.ealg)) profile.preference.push_back(pair);
    warn_of_lonely(section, "encr-alg-list", "auth-alg-list", encr, parse_ealg, &AlgorithmPair::ealg,
                   profile.preference);
    warn_of_lonely(section, "auth-alg-list", "encr-alg-list", auth, parse_alg, &AlgorithmPair::alg, profile.preference);
}

// `preference` sets the order outright.
void read_algorithms(Section& section, ImsAkaProfile& profile) {
    read_algorithm_lists(section, profile);
    std::vector<std::string> order;
    section.texts("preference", order);
    if (!order.empty()) {
        if (section.has("encr-alg-list") || section.has("auth-alg-list"))
            section.mistake("preference", "names the pairs itself; remove encr-alg-list and auth-alg-list");
        profile.preference.clear();
        for (const auto& text : order) {
            const auto slash = text.find('/');
            const auto alg = parse_alg(text.substr(0, slash));
            const auto ealg = parse_ealg(slash == std::string::npos ? std::string{} : text.substr(slash + 1));
            if (!alg || !ealg || !is_valid({*alg, *ealg}))
                section.mistake(
                    "preference",
                    fmt::format(
                        "\"{}\" is no valid \"alg/ealg\" pair such as \"hmac-sha-1-96/aes-cbc\" or \"null/aes-gcm\"",
                        text));
            else if (std::ranges::find(profile.preference, AlgorithmPair{*alg, *ealg}) != profile.preference.end())
                section.mistake("preference", fmt::format("\"{}\" is named twice", text));
            else profile.preference.push_back({*alg, *ealg});
        }
    }
    section.boolean("refuse-deprecated", profile.refuse_deprecated);
    if (profile.refuse_deprecated) std::erase_if(profile.preference, is_deprecated);
    if (profile.preference.empty())
        section.mistake("auth-alg-list", "no valid pair of algorithms is left; allow hmac-sha-1-96 with aes-cbc, say");
}

// Annex M has its own protected ports: the guards of the two modes never mix.
// What it says is read by lab_of().
void read_lab(Section& section) {
    bool exports = false;
    std::string log;
    section.boolean("export-keys", exports);
    section.text("tls-key-log", log);
    if (section.has("tls-key-log") && (!log.starts_with('/') || log.find_first_of("'\"\\\n") != std::string::npos))
        section.mistake("tls-key-log", "must be the path of a file from / on, without quotes and backslashes");
    if (exports) section.warn("export-keys", "keys of phones leave this gateway: only for a lab without subscribers");
}

bool is_plain(const std::string& text) { return text.find_first_of("'\"\\\n") == std::string::npos; }

// Their values are taken out of Config::settings by observation_of().
void read_observation(Section& root, const Config& config) {
    std::string word, key_file, ca, name;
    root.word("log-format", word, {{"text", std::string("text")}, {"json", std::string("json")}});
    std::string transport = "udp";
    root.word("hep-transport", transport,
              {{"udp", std::string("udp")}, {"tcp", std::string("tcp")}, {"tls", std::string("tls")}});
    for (const auto& [key, text] : {std::pair<std::string_view, std::string*>{"hep-auth-key-file", &key_file},
                                    {"hep-tls-ca", &ca},
                                    {"hep-tls-name", &name}}) {
        root.text(key, *text);
        if (!is_plain(*text)) root.mistake(key, "must not contain quotes and backslashes");
    }
    if (config.hep_collector.port.value == 0) return;
    if (transport == "tls" && name.empty())
        root.mistake("hep-tls-name",
                     "the host that the collector's certificate is for is needed with hep-transport = \"tls\"");
    if (transport != "tls" && (!ca.empty() || !name.empty()))
        root.warn("hep-transport", "hep-tls-ca and hep-tls-name count with hep-transport = \"tls\" only");
    if (transport != "tls" && !key_file.empty())
        root.warn("hep-auth-key-file",
                  "the key and all SIP go in clear to the collector; hep-transport = \"tls\" protects them");
}

void read_nat_traversal(Section& section, ImsAkaProfile& profile) {
    auto& nat = profile.nat;
    section.word("nat-traversal", nat.is_on, {{"off", false}, {"on", true}});
    section.port("start-nat-protected-port", nat.start_protected_port);
    section.port("end-nat-protected-port", nat.end_protected_port);
    section.word("nat-inner-addresses", nat.takes_private_inner, {{"public", false}, {"any", true}});
    if (!nat.is_on) return;
    const int first = nat.start_protected_port.value;
    const int size = nat.end_protected_port.value - first + 1;
    if (first == 0 || nat.end_protected_port.value == 0)
        section.mistake("nat-traversal",
                        "start-nat-protected-port and end-nat-protected-port are both needed, such as 6208 and 6223: "
                        "phones behind NAT have protected ports of their own");
    else if (size < 8 || size > 64 || !nat.block().is_aligned())
        section.mistake("end-nat-protected-port",
                        fmt::format("{} to {} makes {} port(s); give 8, 16, 32 or 64, beginning at a multiple of their "
                                    "number (such as 6208 to 6223), so that one policy with a port mask covers them",
                                    first, nat.end_protected_port.value, std::max(size, 0)));
    if (nat.block().contains(xfrm::kEncapsulationPort))
        section.mistake("start-nat-protected-port",
                        "UDP 4500 is the port of the encapsulation and never a protected one");
    if (!nat.block().is_aligned()) nat.is_on = false;  // so that its ports are judged no further
}

void read_profile(Section& section, Config& config) {
    ImsAkaProfile profile;
    section.text("name", profile.name);
    section.ports("protected-server-port", profile.protected_server_ports);
    section.port("start-protected-client-port", profile.start_protected_client_port);
    section.port("end-protected-client-port", profile.end_protected_client_port);
    read_nat_traversal(section, profile);
    read_algorithms(section, profile);
    if (profile.name.empty()) section.mistake("name", "every profile needs a name, which sip-ports refer to");
    else if (config.profile(profile.name))
        section.mistake("name", fmt::format("two profiles are called \"{}\"", profile.name));
    if (profile.protected_server_ports.size() != 2)
        section.mistake(
            "protected-server-port",
            "give two ports, such as [6100, 6101]: the second serves phones whose address and port collide with a live registration (G-25)");
    const int clients = profile.end_protected_client_port.value - profile.start_protected_client_port.value + 1;
    if (profile.start_protected_client_port.value == 0 || profile.end_protected_client_port.value == 0)
        section.mistake("start-protected-client-port",
                        "start-protected-client-port and end-protected-client-port are both needed");
    else if (clients < 3)
        section.mistake(
            "end-protected-client-port",
            fmt::format("start to end makes {} port(s); at least three are needed (temporary, established and old set)",
                        std::max(clients, 0)));
    else if (clients > 64)
        section.mistake("end-protected-client-port", "more than 64 client ports make no sense: each costs sockets");
    std::set<Port> seen;
    for (const auto port : profile.all_ports()) {
        if (port.value == 5060 || port.value == 5061)
            section.mistake("protected-server-port",
                            fmt::format("{} is a well-known clear port and never a protected one (B-13)", port.value));
        else if (port.value < 1025)
            section.mistake("protected-server-port",
                            fmt::format("port {}: protected ports lie between 1025 and 65535", port.value));
        if (!seen.insert(port).second)
            section.mistake("protected-server-port", fmt::format("port {} is used twice in this profile", port.value));
    }
    config.ims_aka_profiles.push_back(std::move(profile));
}

void read_sip_port(Section& section, SipInterface& interface) {
    SipPort port;
    std::string address;
    section.text("address", address);
    if (const auto parsed = Address::parse(address); parsed && !parsed->is_any()) port.address = *parsed;
    else
        section.mistake(
            "address",
            fmt::format(
                "\"{}\" is no IPv4 or IPv6 address of this machine (a wildcard would send from addresses the SAs do not know)",
                address));
    section.port("port", port.port);
    std::vector<std::string> transports{"UDP", "TCP"};
    section.texts("transport-protocol", transports);
    port.udp = port.tcp = port.tls = false;
    for (const auto& word : transports) {
        if (word == "UDP") port.udp = true;
        else if (word == "TCP") port.tcp = true;
        else if (word == "TLS") port.tls = true;
        else
            section.mistake("transport-protocol", fmt::format("\"{}\" is none of \"UDP\", \"TCP\", \"TLS\"{}", word,
                                                              did_you_mean(word, {"UDP", "TCP", "TLS"})));
    }
    section.text("ims-aka-profile", port.ims_aka_profile);
    section.text("tls-profile", port.tls_profile);
    if (port.tls && (port.udp || port.tcp))
        section.mistake("transport-protocol", "TLS needs a port of its own (5061, say); UDP and TCP may share one");
    if (port.tls && port.tls_profile.empty())
        section.mistake("tls-profile", "a TLS port names the [[tls-profile]] that holds its certificate");
    if (!port.tls && !port.tls_profile.empty())
        section.mistake("tls-profile", "only a port with transport-protocol = \"TLS\" has a tls-profile");
    if (port.tls && !port.ims_aka_profile.empty())
        section.mistake("ims-aka-profile", "belongs to the UDP and TCP port, not to the TLS port");
    interface.sip_ports.push_back(std::move(port));
}

// Which fields of Authorization a refresh may not change (feature text: "if they differ with previous association").
void read_refresh_authorization(Section& section, RefreshAuthorization& compared) {
    std::vector<std::string> fields{"username", "realm", "uri", "algorithm"};
    section.texts("refresh-authorization", fields);
    const auto names = [&](std::string_view field) { return std::ranges::find(fields, field) != fields.end(); };
    compared = {.realm = names("realm"), .uri = names("uri"), .algorithm = names("algorithm")};
    for (const auto& field : fields)
        if (field != "username" && field != "realm" && field != "uri" && field != "algorithm")
            section.mistake("refresh-authorization",
                            fmt::format("\"{}\" is none of username, realm, uri, algorithm", field));
    if (!names("username"))
        section.mistake("refresh-authorization",
                        "username cannot be left out: the SAs and the TLS connection belong to one private identity");
}

void read_emergency(Section& section, SipInterface& interface) {
    section.boolean("anonymous-emergency", interface.anonymous_emergency);
    section.texts("emergency-numbers", interface.emergency_numbers);
    section.boolean("alternative-service", interface.alternative_service);
}

void read_interface(Section& section, Config& config) {
    SipInterface i;
    section.text("realm-id", i.realm_id);
    section.boolean("sec-agree-feature", i.sec_agree_feature);
    section.word("sec-agree-pref", i.sec_agree_pref,
                 {{"ipsec3gpp", SecAgreePref::ipsec3gpp},
                  {"tls", SecAgreePref::tls},
                  {"ipsec3gpp-tls", SecAgreePref::ipsec3gpp_tls},
                  {"tls-ipsec3gpp", SecAgreePref::tls_ipsec3gpp}});
    section.boolean("ims-aka-feature", i.ims_aka_feature);
    section.text("host", i.host);
    section.word("confidentiality", i.confidentiality,
                 {{"off", Confidentiality::off},
                  {"preferred", Confidentiality::preferred},
                  {"required", Confidentiality::required}});
    if (section.has("no-security-client")) {
        auto answer = NoSecurityClient::forward;
        section.word("no-security-client", answer,
                     {{"forward", NoSecurityClient::forward}, {"reject", NoSecurityClient::reject}});
        i.no_security_client = answer;
    }
    section.word("security-server", i.security_server,
                 {{"selected", SecurityServerMode::selected}, {"list", SecurityServerMode::list}});
    section.boolean("security-server-q", i.security_server_q);
    section.boolean("require-both", i.require_both);
    read_refresh_authorization(section, i.refresh_authorization);
    section.boolean("strict-refresh", i.strict_refresh);
    section.boolean("ignore-q", i.ignore_q);
    section.boolean("bare-integrity-protected", i.bare_integrity_protected);
    section.boolean("refuse-mediasec", i.refuse_mediasec);
    section.boolean("server-initiated", i.server_initiated);
    section.boolean("strict-collision", i.strict_collision);
    std::string aka_over_tls = "allow";
    section.text("aka-over-tls", aka_over_tls);
    if (aka_over_tls == "reject-akav1") i.reject_akav1_over_tls = true;
    else if (aka_over_tls != "allow") section.mistake("aka-over-tls", "must be \"allow\" or \"reject-akav1\"");
    section.boolean("tls-connected", i.tls_connected);
    read_emergency(section, i);
    section.tables("sip-ports", "sip-interface.sip-ports", [&](Section& s) { read_sip_port(s, i); });
    if (i.realm_id.empty()) section.mistake("realm-id", "every sip-interface needs a realm-id, its name");
    for (const auto& other : config.sip_interfaces)
        if (other.realm_id == i.realm_id)
            section.mistake("realm-id", fmt::format("two interfaces are called \"{}\"", i.realm_id));
    if (i.sip_ports.empty())
        section.mistake("sip-ports", "an interface without [[sip-interface.sip-ports]] serves nobody");
    config.sip_interfaces.push_back(std::move(i));
}

void read_tls_profile(Section& section, Config& config) {
    TlsProfile profile;
    section.text("name", profile.name);
    section.texts("end-entity-cert", profile.end_entity_certs);
    section.texts("private-key", profile.private_keys);
    auto days = static_cast<std::uint32_t>(profile.expiry_warning.count());
    section.number("expiry-warning-days", days, 0, 3650);
    profile.expiry_warning = std::chrono::days{days};
    if (profile.name.empty()) section.mistake("name", "every profile needs a name, which sip-ports refer to");
    else if (config.tls_profile(profile.name))
        section.mistake("name", fmt::format("two profiles are called \"{}\"", profile.name));
    if (profile.end_entity_certs.empty())
        section.mistake("end-entity-cert", "the PEM file with the server's certificate chain is needed");
    if (profile.private_keys.size() != profile.end_entity_certs.size())
        section.mistake("private-key", "give one key file for each certificate file, in the same order");
    TlsSettings settings;  // who opens the ports reads them again
    read_tls_settings(section, profile.end_entity_certs.size(), settings);
    config.tls_profiles.push_back(std::move(profile));
}

void read_core_tls(Section& section, Core& core) {
    section.text("tls-name", core.tls_name);
    section.text("tls-ca", core.tls_ca);
    section.text("tls-profile", core.tls_profile);
    const bool tls = core.transport == CoreTransport::tls;
    for (const auto* hops : {&core.next_hops, &core.emergency_next_hops})
        for (const NextHop& hop : *hops)
            if (hop.transport && (*hop.transport == CoreTransport::tls) != tls)
                section.mistake(
                    "next-hop",
                    "transport of a next hop: [core] transport = \"tls\" and no other, or \"udp\" and \"tcp\" with [core] transport likewise");
    for (const auto* hops : {&core.next_hops, &core.emergency_next_hops})
        for (const NextHop& hop : *hops)
            if (!tls && !hop.tls_name.empty())
                section.mistake("next-hop", "tls-name of a next hop needs [core] transport = \"tls\"");
    if (tls && core.tls_name.empty())
        section.mistake("tls-name",
                        "transport = \"tls\" needs the SIP domain or host that the core's certificate must be for");
    if (tls && core.tls_profile.empty())
        section.mistake(
            "tls-profile",
            "transport = \"tls\" needs the [[tls-profile]] with our own certificate: the core reaches us by TLS, too");
}

void read_transport(Section& section, CoreTransport& out) {
    section.word("transport", out,
                 {{"udp", CoreTransport::udp}, {"tcp", CoreTransport::tcp}, {"tls", CoreTransport::tls}});
}

// "ADDRESS:PORT", "ADDRESS", "NAME" or "NAME:PORT".
std::optional<NextHop> parse_next_hop(std::string_view text) {
    NextHop hop;
    if (const auto endpoint = Endpoint::parse(text)) {
        hop.endpoint = *endpoint;
    } else if (const auto address = Address::parse(text)) {
        hop.endpoint.address = *address;
    } else {
        const std::string as_uri = "sip:" + std::string(text);
        const auto uri = sip::Uri::parse(as_uri);
        const bool is_name =
            uri && uri->user.empty() && uri->parameters.empty() && uri->host.size() <= 253 && !uri->host.empty() &&
            std::ranges::all_of(uri->host,
                                [](char c) {
                                    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '.' ||
                                           c == '_';
                                }) &&
            std::ranges::any_of(uri->host, [](char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0; });
        if (!is_name) return std::nullopt;
        hop.host = std::string(uri->host);
        hop.endpoint.port = uri->port;
        return hop;
    }
    if (hop.endpoint.address.is_any()) return std::nullopt;
    if (hop.endpoint.port.value == 0) hop.endpoint.port = Port{5060};
    return hop;
}

// `key` is one text, the simple case, with priority 0; `tables` are [[core.next-hops]], several with priority, weight
// and transport.
void read_next_hops(Section& section, std::string_view key, std::string_view tables, const Core& core,
                    std::vector<NextHop>& out) {
    const auto add = [&](Section& where, std::string_view at, const std::string& text, NextHop more) {
        const auto hop = parse_next_hop(text);
        if (!hop)
            return where.mistake(
                at, fmt::format("\"{}\" is neither \"ADDRESS:PORT\" (IPv6: \"[ADDRESS]:PORT\") nor a host name", text));
        more.host = hop->host;
        more.endpoint = hop->endpoint;
        if (more.host.empty() && !core.listen.empty() && core.listen_for(more.endpoint.address.family()) == nullptr)
            where.mistake(at, fmt::format("listen has no address of the family of {} {}; add one, as in "
                                          "listen = [\"10.2.0.1:5060\", \"[2001:db8::1]:5060\"]",
                                          key, text));
        out.push_back(std::move(more));
    };
    std::string one;
    section.text(key, one);
    if (!one.empty()) add(section, key, one, {});
    section.tables(tables, fmt::format("core.{}", tables), [&](Section& s) {
        NextHop hop;
        std::string text;
        s.text("host", text);
        if (s.has("transport")) {
            auto transport = CoreTransport::udp;
            read_transport(s, transport);
            hop.transport = transport;
        }
        s.number("priority", hop.priority, 0, 65535);
        s.number("weight", hop.weight, 1, 65535);
        s.text("tls-name", hop.tls_name);
        add(s, "host", text, std::move(hop));
    });
    if (out.size() > 64) section.mistake(tables, "more than 64 next hops; name them by DNS SRV instead");
}

void read_core(Section& section, Config& config) {
    read_endpoints(section, "listen", config.core.listen);
    read_next_hops(section, "next-hop", "next-hops", config.core, config.core.next_hops);
    read_transport(section, config.core.transport);
    section.text("visited-network-id", config.core.visited_network_id);
    section.text("orig-ioi", config.core.orig_ioi);
    read_next_hops(section, "emergency-next-hop", "emergency-next-hops", config.core, config.core.emergency_next_hops);
    section.boolean("follow-route", config.core.follow_route);
    read_ranges(section, "peers", config.core.peers);
    section.boolean("reg-event", config.core.reg_event);
    read_seconds(section, "ping-interval", config.core.ping_interval, 0, 3600);
    read_seconds(section, "next-hop-answer", config.core.next_hop_answer, 1, 32);
    std::vector<std::string> servers;
    section.texts("name-servers", servers);
    for (const auto& server : servers) {
        if (const auto endpoint = Endpoint::parse(server)) config.core.name_servers.push_back(*endpoint);
        else if (const auto address = Address::parse(server)) config.core.name_servers.push_back({*address, Port{53}});
        else section.mistake("name-servers", fmt::format("\"{}\" is no \"ADDRESS\" or \"ADDRESS:PORT\"", server));
    }
    read_core_tls(section, config.core);
    if (config.core.listen.empty())
        section.mistake("listen", "the gateway's own \"ADDRESS:PORT\" on the core side is needed");
    if (!section.has("next-hop") && !section.has("next-hops"))
        section.mistake("next-hop", "the \"ADDRESS:PORT\" or name of the I-CSCF, S-CSCF or P-CSCF is needed");
    if (config.core.visited_network_id.empty())
        section.mistake("visited-network-id", "the name of this network is needed for P-Visited-Network-ID");
    if (config.core.orig_ioi.empty()) config.core.orig_ioi = config.core.visited_network_id;
}

void read_limits(Section& section, Limits& limits) {
    constexpr std::int64_t kMany = 10'000'000;
    section.number("registrations", limits.registrations, 1, kMany);
    section.number("challenges", limits.challenges, 1, kMany);
    section.number("challenges-per-address", limits.challenges_per_address, 1, kMany);
    section.number("sets-per-address", limits.sets_per_address, 3, kMany);
    section.number("connections", limits.connections, 1, kMany);
    section.number("connections-per-address", limits.connections_per_address, 1, kMany);
    section.number("tls-handshakes", limits.tls_handshakes, 1, kMany);
    section.number("tls-handshakes-per-address", limits.tls_handshakes_per_address, 1, kMany);
    section.number("transactions", limits.transactions, 1, kMany);
    section.number("emergency-reserve", limits.emergency_reserve, 0, 50);
    section.number("emergency-calls", limits.emergency_calls, 1, kMany);
    section.number("emergency-calls-per-source", limits.emergency_calls_per_source, 1, kMany);
    std::int64_t loop_lag = limits.loop_lag.count();
    section.number("loop-lag", loop_lag, 50, 60000);
    limits.loop_lag = std::chrono::milliseconds{loop_lag};
    section.number("unprotected-message", limits.unprotected_message, 2048, sip::kMaxMessage);
    section.number("unprotected-body", limits.unprotected_body, 0, sip::kMaxMessage);
    section.number("authentications", limits.authentications.in_all, 0, 1'000'000);
    section.number("authentications-per-source", limits.authentications.per_source, 0, 1'000'000);
    section.number("authentications-per-impi", limits.authentications.per_impi, 0, 1'000'000);
    RecorderLimits recorder;  // its values are taken out of Config::settings, too
    section.number("recorded-octets", recorder.octets, 0, std::int64_t{1} << 32);
    section.number("recorded-octets-per-source", recorder.octets_per_source, 65536, std::int64_t{1} << 32);
    if (recorder.octets != 0 && recorder.octets < recorder.octets_per_source)
        section.mistake("recorded-octets", "must be 0, or not less than recorded-octets-per-source");
    section.number("trace-records-per-ue", limits.trace_records_per_ue, 1, 1000);
    section.number("traced-ues", limits.traced_ues, 1, kMany);
}

void read_timers(Section& section, TimerConfig& timers) {
    read_seconds(section, "reg-await-auth", timers.reg_await_auth, 5, 3600);
    read_seconds(section, "old-set", timers.old_set, 1, 3600);
    read_seconds(section, "lifetime-margin", timers.lifetime_margin, 0, kDay);
    read_seconds(section, "kernel-margin", timers.kernel_margin, 5, kDay);
    read_seconds(section, "ringing", timers.ringing, 1, kDay);
    read_seconds(section, "tls-handshake", timers.tls_handshake, 1, 600);
    read_seconds(section, "stranger-connection", timers.stranger_connection, 0, kDay);
    Observation idle;  // likewise
    read_seconds(section, "unregistered-idle", idle.unregistered_idle, 1, kDay);
    read_seconds(section, "final-answer", timers.final_answer, 1, 3600);
}

void read_xfrm(Section& section, XfrmConfig& xfrm) {
    section.word(
        "sa-engine", xfrm.sa_engine,
        {{"process", SaEngine::process}, {"in-process", SaEngine::in_process}, {"libcharon", SaEngine::libcharon}});
    section.number("reqid", xfrm.reqid, 1, 0xffffffff);
    section.number("spi-start", xfrm.spi_start.value, 65536, 0xffffffff);
    section.number("spi-end", xfrm.spi_end.value, 65536, 0xffffffff);
    section.number("mark-mask", xfrm.mark_mask, 0xff, 0xffffffff);
    if (xfrm.spi_start.value + std::uint64_t{5} > xfrm.spi_end.value)
        section.mistake("spi-end", "the range must hold at least six SPIs, for the three sets of one phone");
    const auto mask = xfrm.mark_mask;
    if ((mask & (mask + 1)) != 0) section.mistake("mark-mask", "must be a row of low bits such as 0x00ffffff");
}

void read_store(Section& section, StoreConfig& store) {
    section.word("mode", store.is_kept, {{"file", true}, {"memory", false}});
    section.text("file", store.file);
    section.number("queue", store.queue, 1, 10'000'000);
    if (store.file.empty() || store.file.front() != '/')
        section.mistake("file", "must be a path from the root, such as \"/var/lib/gmgate/registrations.db\"");
}

// Whether an interface has the ports and profiles for what it is to offer.
void check_offers(const toml::table& root, const Config& config, const SipInterface& interface, Mistakes& mistakes) {
    for (const auto& port : interface.sip_ports) {
        if (!port.tls) continue;
        if (!port.tls_profile.empty() && !config.tls_profile(port.tls_profile))
            mistakes.add(root.source(),
                         fmt::format("sip-interface \"{}\" names tls-profile \"{}\", which is not defined",
                                     interface.realm_id, port.tls_profile));
        if (interface.sec_agree_feature && !allows_tls(interface.sec_agree_pref))
            mistakes.add(
                root.source(),
                fmt::format(
                    "sip-interface \"{}\" has a TLS port but its sec-agree-pref allows no tls; use ipsec3gpp-tls or tls-ipsec3gpp",
                    interface.realm_id));
    }
    const bool wants_tls = interface.sec_agree_feature && allows_tls(interface.sec_agree_pref);
    if (wants_tls && std::ranges::none_of(interface.sip_ports, [](const SipPort& p) { return p.tls; }))
        mistakes.add(
            root.source(),
            fmt::format("sip-interface \"{}\" is to offer tls but has no sip-port with transport-protocol = \"TLS\"",
                        interface.realm_id));
    const bool wants_ipsec =
        (interface.sec_agree_feature && allows_ipsec(interface.sec_agree_pref)) || interface.ims_aka_feature;
    const bool has_profile =
        std::ranges::any_of(interface.sip_ports, [](const SipPort& p) { return !p.ims_aka_profile.empty(); });
    if (wants_ipsec && !has_profile && !interface.sip_ports.empty())
        mistakes.add(
            root.source(),
            fmt::format(
                "sip-interface \"{}\" is to offer ipsec-3gpp but none of its sip-ports names an ims-aka-profile",
                interface.realm_id));
}

// A set of SAs knows its interface by its protected ports, so one address has each profile for one interface, and one
// interface one profile at an address.
class ProfilesInUse {
public:
    enum class Use { fresh, again, wrong };
    Use use(const toml::table& root, const SipInterface& interface, const SipPort& port, Mistakes& mistakes) {
        const auto [profile, first] = profile_of_.try_emplace({interface.realm_id, port.address}, port.ims_aka_profile);
        if (!first && profile->second != port.ims_aka_profile) {
            mistakes.add(
                root.source(),
                fmt::format("sip-interface \"{}\" names ims-aka-profile \"{}\" and \"{}\" at {}; one "
                            "address of an interface has one profile",
                            interface.realm_id, profile->second, port.ims_aka_profile, port.address.to_string()));
            return Use::wrong;
        }
        const auto [realm, fresh] = realm_of_.try_emplace({port.ims_aka_profile, port.address}, interface.realm_id);
        if (fresh) return Use::fresh;
        if (realm->second == interface.realm_id) return Use::again;  // two clear ports share the protected ones
        mistakes.add(root.source(),
                     fmt::format("sip-interface \"{}\" and \"{}\" share ims-aka-profile \"{}\" at {}, so that the "
                                 "SAs of a phone would belong to either; give one of them a profile with other ports",
                                 realm->second, interface.realm_id, port.ims_aka_profile, port.address.to_string()));
        return Use::wrong;
    }

private:
    std::map<std::pair<std::string, Address>, std::string> profile_of_, realm_of_;
};

// A feature that is off must not surprise: A-24.
void warn_of_no_service(const toml::table& root, const SipInterface& interface, Mistakes& mistakes) {
    const bool has_clear = std::ranges::any_of(interface.sip_ports, [](const SipPort& port) { return !port.tls; });
    if (interface.serves_clear_ports() || !has_clear) return;
    mistakes.warn(root.source(),
                  fmt::format("sip-interface \"{}\": neither sec-agree-feature nor ims-aka-feature is enabled, so its "
                              "UDP and TCP ports serve nobody but emergency callers (403); enable one of them, or "
                              "leave it TLS ports only",
                              interface.realm_id));
}

// What only several sections together can get wrong.
void check_together(const toml::table& root, const Config& config, Mistakes& mistakes) {
    std::map<Endpoint, std::string> taken;
    const auto claim = [&](const Address& address, Port port, const std::string& what) {
        const auto [at, fresh] = taken.try_emplace(Endpoint{address, port}, what);
        if (!fresh)
            mistakes.add(root.source(), fmt::format("{} is used by {} and by {}; give one of them another port",
                                                    Endpoint{address, port}.to_string(), at->second, what));
    };
    for (const Endpoint& local : config.core.listen) claim(local.address, local.port, "[core] listen");
    if (!config.core.tls_profile.empty() && !config.tls_profile(config.core.tls_profile))
        mistakes.add(root.source(),
                     fmt::format("[core] names tls-profile \"{}\", which is not defined", config.core.tls_profile));
    ProfilesInUse in_use;
    std::set<Address> encapsulated;
    if (config.xfrm.sa_engine == SaEngine::libcharon &&
        std::ranges::any_of(config.ims_aka_profiles, [](const ImsAkaProfile& p) { return p.nat.is_on; }))
        mistakes.add(
            root.source(),
            "nat-traversal = \"on\" needs another [xfrm] sa-engine than \"libcharon\", which can write neither "
            "port masks nor what a NAT changes; \"process\" is the default");
    for (const auto& interface : config.sip_interfaces) {
        for (const auto& port : interface.sip_ports) {
            claim(port.address, port.port, fmt::format("sip-interface \"{}\"", interface.realm_id));
            if (port.ims_aka_profile.empty()) continue;
            const auto* profile = config.profile(port.ims_aka_profile);
            if (!profile) {
                mistakes.add(root.source(),
                             fmt::format("sip-interface \"{}\" names ims-aka-profile \"{}\", which is not defined",
                                         interface.realm_id, port.ims_aka_profile));
                continue;
            }
            if (in_use.use(root, interface, port, mistakes) != ProfilesInUse::Use::fresh) continue;
            for (const auto p : profile->all_ports())
                claim(port.address, p, fmt::format("ims-aka-profile \"{}\"", profile->name));
            if (profile->nat.is_on && encapsulated.insert(port.address).second)
                claim(port.address, xfrm::kEncapsulationPort, "nat-traversal");
        }
        check_offers(root, config, interface, mistakes);
        warn_of_no_service(root, interface, mistakes);
    }
    if (config.sip_interfaces.empty()) mistakes.add(root.source(), "no [[sip-interface]]: phones have nowhere to go");
}

std::string describe(const toml::parse_error& error, const std::string& name) {
    return fmt::format("{}:{}:{}: {}", name, error.source().begin.line, error.source().begin.column,
                       error.description());
}

}  // namespace

bool allows_ipsec(SecAgreePref pref) { return pref != SecAgreePref::tls; }
bool allows_tls(SecAgreePref pref) { return pref != SecAgreePref::ipsec3gpp; }

std::string_view uri_transport(CoreTransport transport) {
    switch (transport) {
        case CoreTransport::udp:
            return "";
        case CoreTransport::tcp:
            return ";transport=tcp";
        case CoreTransport::tls:
            return ";transport=tls";
    }
    return "";
}

std::string_view to_string(SecAgreePref pref) {
    switch (pref) {
        case SecAgreePref::ipsec3gpp:
            return "ipsec3gpp";
        case SecAgreePref::tls:
            return "tls";
        case SecAgreePref::ipsec3gpp_tls:
            return "ipsec3gpp-tls";
        case SecAgreePref::tls_ipsec3gpp:
            return "tls-ipsec3gpp";
    }
    return "?";
}

bool Core::listens_at(const Endpoint& local) const { return std::ranges::find(listen, local) != listen.end(); }

const Endpoint* Core::listen_for(Family family) const {
    const auto at = std::ranges::find(listen, family, [](const Endpoint& local) { return local.address.family(); });
    return at == listen.end() ? nullptr : &*at;
}

std::vector<std::string> Core::tls_names() const {
    std::vector<std::string> names{tls_name};
    for (const auto* hops : {&next_hops, &emergency_next_hops})
        for (const NextHop& hop : *hops)
            if (!hop.tls_name.empty() && std::ranges::find(names, hop.tls_name) == names.end())
                names.push_back(hop.tls_name);
    return names;
}

std::string NextHop::to_string() const {
    if (host.empty()) return endpoint.to_string();
    return endpoint.port.value == 0 ? host : fmt::format("{}:{}", host, endpoint.port.value);
}

std::vector<Port> ImsAkaProfile::client_ports() const {
    std::vector<Port> ports;
    for (int p = start_protected_client_port.value; p <= end_protected_client_port.value && p > 0; ++p)
        ports.emplace_back(static_cast<std::uint16_t>(p));
    return ports;
}

std::vector<Port> ImsAkaProfile::server_ports(xfrm::Mode mode) const {
    return mode == xfrm::Mode::transport ? protected_server_ports : nat.server_ports();
}

std::vector<Port> ImsAkaProfile::client_ports(xfrm::Mode mode) const {
    return mode == xfrm::Mode::transport ? client_ports() : nat.client_ports();
}

std::vector<Port> ImsAkaProfile::transport_ports() const {
    auto ports = client_ports();
    ports.insert(ports.begin(), protected_server_ports.begin(), protected_server_ports.end());
    return ports;
}

std::vector<Port> ImsAkaProfile::all_ports() const {
    auto ports = transport_ports();
    for (const auto& more : {nat.server_ports(), nat.client_ports()})
        ports.insert(ports.end(), more.begin(), more.end());
    return ports;
}

NoSecurityClient SipInterface::on_no_security_client() const {
    return no_security_client.value_or(allows_tls(sec_agree_pref) ? NoSecurityClient::forward
                                                                  : NoSecurityClient::reject);
}

const ImsAkaProfile* Config::profile(std::string_view name) const {
    const auto at = std::ranges::find(ims_aka_profiles, name, &ImsAkaProfile::name);
    return at == ims_aka_profiles.end() ? nullptr : &*at;
}

const TlsProfile* Config::tls_profile(std::string_view name) const {
    const auto at = std::ranges::find(tls_profiles, name, &TlsProfile::name);
    return at == tls_profiles.end() ? nullptr : &*at;
}

Result<Config> parse_config(std::string_view text, const std::string& name) {
    toml::table document;
    try {  // Debian's toml++ library is built with exceptions; they end here
        document = toml::parse(text, name);
    } catch (const toml::parse_error& error) {
        return failure(Reaction::reject, describe(error, name));
    }
    Config config;
    config.path = name;
    Mistakes mistakes(name);
    Section root(document, "top level", mistakes);
    root.word("log-level", config.log_level,
              {{"debug", "debug"}, {"info", "info"}, {"notice", "notice"}, {"warning", "warning"}, {"error", "error"}});
    root.text("control-socket", config.control_socket);
    root.text("control-group", config.control_group);
    root.boolean("packet-tap", config.packet_tap);
    read_endpoint(root, "metrics-listen", config.metrics_listen);
    read_endpoint(root, "hep-collector", config.hep_collector);
    root.number("hep-id", config.hep_id, 1, 0xffffffff);
    read_observation(root, config);
    if (!root.has("core")) root.mistake("core", "the section [core] is missing: where does clear SIP go?");
    root.table("core", [&](Section& s) { read_core(s, config); });
    root.tables("ims-aka-profile", "ims-aka-profile", [&](Section& s) { read_profile(s, config); });
    root.tables("tls-profile", "tls-profile", [&](Section& s) { read_tls_profile(s, config); });
    root.word("ktls", config.ktls, {{"required", Ktls::required}, {"preferred", Ktls::preferred}, {"off", Ktls::off}});
    root.boolean("tls-rekey", config.tls_rekey);
    root.tables("sip-interface", "sip-interface", [&](Section& s) { read_interface(s, config); });
    root.table("limits", [&](Section& s) { read_limits(s, config.limits); });
    root.table("timers", [&](Section& s) { read_timers(s, config.timers); });
    root.table("xfrm", [&](Section& s) { read_xfrm(s, config.xfrm); });
    root.table("store", [&](Section& s) { read_store(s, config.store); });
    root.table("lab", [&](Section& s) { read_lab(s); });
    root.table("restart", [&](Section& s) { s.text("take-over-socket", config.restart.take_over_socket); });
    root.table("cluster", [&](Section& s) {
        ClusterConfig cluster;
        read_cluster(s, cluster);
        check_cluster(s, cluster, config);
    });
    root.finish();
    flatten(document, {}, config.settings);
    if (mistakes.none()) check_together(document, config, mistakes);
    if (!mistakes.none()) return failure(Reaction::reject, mistakes.text());
    config.warnings = mistakes.take_warnings();
    return config;
}

Result<Config> load_config(const std::string& path) {
    std::ifstream file(path);
    if (!file) return system_failure(Reaction::reject, fmt::format("{}: cannot be read", path), errno);
    std::stringstream text;
    text << file.rdbuf();
    return parse_config(text.str(), path);
}

std::vector<std::string> check_addresses(const Config& config) {
    // Those of a cluster come and go; the node that does not have them stands by.
    if (config.settings.contains("cluster.name")) return {};
    std::set<Address> here;
    ifaddrs* list = nullptr;
    if (getifaddrs(&list) == 0) {
        for (const auto* entry = list; entry; entry = entry->ifa_next)
            if (entry->ifa_addr)
                if (const auto endpoint = Endpoint::from_sockaddr(entry->ifa_addr)) here.insert(endpoint->address);
        freeifaddrs(list);
    }
    std::vector<std::string> problems;
    const auto need = [&](const Address& address, const std::string& what) {
        if (!here.contains(address))
            problems.push_back(
                fmt::format("{}: {} {} does not exist on this machine; add it (ip address add …) or correct the file",
                            config.path, what, address.to_string()));
    };
    for (const Endpoint& local : config.core.listen) need(local.address, "[core] listen address");
    for (const auto& interface : config.sip_interfaces)
        for (const auto& port : interface.sip_ports)
            need(port.address, fmt::format("sip-interface \"{}\" address", interface.realm_id));
    return problems;
}

}  // namespace gmgate::daemon
