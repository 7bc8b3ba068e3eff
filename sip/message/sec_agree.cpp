#include "sip/message/sec_agree.h"

#include <algorithm>
#include <array>
#include <limits>

#include "sip/message/scanner.h"

namespace gmgate::sip {
namespace {

constexpr std::string_view kIpsec = "ipsec-3gpp";
constexpr const char* kTooLong = "the list is longer than 8192 octets";
constexpr const char* kTooMany = "there are more than 32 entries";
static_assert(kMaxSecurityList == 8192 && kMaxMechanisms == 32);

/// Why a list is malformed and in which entry (from 1) and parameter.
struct Problem {
    const char* what = nullptr;
    std::size_t entry = 0;
    std::string_view parameter;
};

/// RFC 3329 §2.2: qvalue = ("0" ["." 0*3DIGIT]) / ("1" ["." 0*3("0")]), in thousandths.
std::optional<std::uint16_t> parse_q(std::string_view text) {
    if (text.empty() || text.size() > 5 || (text[0] != '0' && text[0] != '1') || (text.size() > 1 && text[1] != '.'))
        return std::nullopt;
    unsigned value = text[0] == '1' ? 1000 : 0;
    unsigned weight = 100;
    for (std::size_t i = 2; i < text.size(); ++i, weight /= 10) {
        if (!scan::is(text[i], scan::kDigit)) return std::nullopt;
        value += static_cast<unsigned>(text[i] - '0') * weight;
    }
    return value <= 1000 ? std::optional(static_cast<std::uint16_t>(value)) : std::nullopt;
}

/// B-61: 1..10 digits; 1..2^32-1 (RFC 4303 §2.1: 0 is no SPI).
std::optional<Spi> parse_spi(std::string_view text) {
    const auto value = text.size() <= 10 ? parse_u32(text) : std::nullopt;
    return value && *value != 0 ? std::optional(Spi(*value)) : std::nullopt;
}

std::optional<Port> parse_port(std::string_view text) {
    const auto value = parse_u32(text);
    if (!value || *value == 0 || *value > std::numeric_limits<std::uint16_t>::max()) return std::nullopt;
    return Port(static_cast<std::uint16_t>(*value));
}

bool is_spi_name(std::string_view name) { return same_token(name, "spi-c") || same_token(name, "spi-s"); }
bool is_port_name(std::string_view name) { return same_token(name, "port-c") || same_token(name, "port-s"); }

/// gen-value = token / host / quoted-string (RFC 3261 §25.1); one quoted string or no quote at all.
bool is_value(std::string_view value) {
    if (value.empty()) return false;
    if (value.front() != '"')
        return std::ranges::all_of(
            value, [](char c) { return scan::is(c, scan::kToken | scan::kHost) || c == '[' || c == ']' || c == ':'; });
    const char* const end = value.data() + value.size();
    return scan::skip_quoted(value.data(), end) == end;
}

/// RFC 3329 §2.2: digest-verify = "d-ver" EQUAL LDQUOT 32LHEX RDQUOT.
bool is_digest_verify(std::string_view value) {
    constexpr std::size_t kDigits = 32;
    if (value.size() != kDigits + 2 || value.front() != '"' || value.back() != '"') return false;
    return std::ranges::all_of(value.substr(1, kDigits),
                               [](char c) { return scan::is(c, scan::kDigit) || (c >= 'a' && c <= 'f'); });
}

/// Values whose meaning we know are checked wherever the name occurs in an entry that gives it that meaning.
const char* check_value(bool is_ipsec, const Parameter& parameter) {
    if (same_token(parameter.name, "q") && !parse_q(parameter.value)) return "bad q value";
    if (same_token(parameter.name, "d-ver") && !is_digest_verify(parameter.value))
        return "not 32 lower-case hexadecimal digits in quotes";
    if (same_token(parameter.name, "d-alg") && !scan::is_token(parameter.value)) return "no token";
    if (!is_ipsec) return nullptr;
    if (is_spi_name(parameter.name) && !parse_spi(parameter.value))
        return "SPI is not 1 to 10 digits within 1..4294967295";
    if (is_port_name(parameter.name) && !parse_port(parameter.value)) return "port is not within 1..65535";
    return nullptr;
}

/// Reads one sec-mechanism; calls sink.mechanism(name) and sink.parameter(p). Sets `problem.what` when it is malformed.
template <class Sink>
bool scan_mechanism(std::string_view element, Sink& sink, Problem& problem) {
    const auto fail = [&problem](const char* what, std::string_view parameter = {}) {
        problem.what = what;
        problem.parameter = parameter;
        return false;
    };
    Split parts(element, ';');
    const std::string_view name = parts.next().value_or(std::string_view{});
    if (name.empty()) return fail("empty entry");
    if (!scan::is_token(name)) return fail("mechanism name is no token");
    const bool is_ipsec = same_token(name, kIpsec);
    sink.mechanism(name);
    std::array<std::string_view, kMaxParameters> names;
    std::size_t count = 0;
    while (const auto part = parts.next()) {
        const std::size_t equal = part->find('=');
        Parameter parameter{.name = trim(part->substr(0, equal)), .value = {}, .has_value = equal != scan::kNone};
        if (!scan::is_token(parameter.name)) return fail("parameter name is no token");
        if (parameter.has_value) {
            parameter.value = trim(part->substr(equal + 1));
            if (!is_value(parameter.value)) return fail("bad parameter value", parameter.name);
        }
        if (const char* what = check_value(is_ipsec, parameter)) return fail(what, parameter.name);
        if (count == names.size()) return fail("too many parameters");
        for (std::size_t i = 0; i < count; ++i)
            if (same_token(names[i], parameter.name)) return fail("parameter occurs twice", parameter.name);
        names[count++] = parameter.name;
        sink.parameter(parameter);
    }
    return true;
}

/// Reads one field value; `problem.entry` counts on over several fields.
template <class Sink>
bool scan_list(std::string_view value, Sink& sink, Problem& problem) {
    if (value.size() > kMaxSecurityList) {
        problem.what = kTooLong;
        return false;
    }
    Split entries(value, ',');
    while (const auto element = entries.next()) {
        if (++problem.entry > kMaxMechanisms) {
            problem.what = kTooMany;
            return false;
        }
        if (!scan_mechanism(*element, sink, problem)) return false;
    }
    return true;
}

struct Collect {
    std::vector<Mechanism>& out;
    void mechanism(std::string_view name) {
        out.emplace_back().name = name;
        out.back().parameters.reserve(10);
    }
    void parameter(const Parameter& p) {
        out.back().parameters.push_back(
            {.name = std::string(p.name), .value = std::string(p.value), .has_value = p.has_value});
        if (same_token(p.name, "q")) out.back().q = parse_q(p.value);
    }
};

struct Ignore {
    void mechanism(std::string_view) {}
    void parameter(const Parameter&) {}
};

std::unexpected<Error> malformed(std::string_view header, const Problem& problem) {
    std::string text(header);
    if (problem.entry != 0) text.append(" entry ").append(std::to_string(problem.entry));
    if (!problem.parameter.empty()) text.append(" parameter ").append(problem.parameter.substr(0, 32));
    return failure(Reaction::reject, text.append(": ").append(problem.what));
}

/// all mechanisms of a server list have different q values.
std::optional<std::size_t> find_equal_q(const std::vector<Mechanism>& mechanisms) {
    for (std::size_t i = 1; i < mechanisms.size(); ++i)
        for (std::size_t k = 0; k < i; ++k)
            if (mechanisms[i].q && mechanisms[i].q == mechanisms[k].q) return i + 1;
    return std::nullopt;
}

}  // namespace

bool Mechanism::is_mediasec() const { return parameter("mediasec").has_value(); }

std::optional<std::string_view> Mechanism::parameter(std::string_view parameter_name) const {
    for (const MechanismParameter& p : parameters)
        if (same_token(p.name, parameter_name)) return unquote(p.value);
    return std::nullopt;
}

std::optional<Ipsec3gpp> Mechanism::ipsec_3gpp() const {
    if (!is(kIpsec)) return std::nullopt;
    Ipsec3gpp typed{.alg = {},
                    .ealg = Ealg::null,
                    .prot_esp = true,
                    .mod_trans = true,
                    .spi_c = {},
                    .spi_s = {},
                    .port_c = {},
                    .port_s = {}};
    for (const MechanismParameter& p : parameters) {
        const std::string_view value = unquote(p.value);
        if (same_token(p.name, "alg")) typed.alg = parse_alg(value);
        else if (same_token(p.name, "ealg")) typed.ealg = parse_ealg(value);
        else if (same_token(p.name, "prot")) typed.prot_esp = same_token(value, "esp");
        else if (same_token(p.name, "mod")) {
            typed.mod_trans = same_token(value, "trans");
            typed.mod_udp_enc_tun = same_token(value, "UDP-enc-tun");
        } else if (same_token(p.name, "spi-c")) typed.spi_c = parse_spi(value);
        else if (same_token(p.name, "spi-s")) typed.spi_s = parse_spi(value);
        else if (same_token(p.name, "port-c")) typed.port_c = parse_port(value);
        else if (same_token(p.name, "port-s")) typed.port_s = parse_port(value);
    }
    return typed;
}

Result<SecurityList> SecurityList::from(const Message& message, HeaderId id) {
    SecurityList list;
    Collect collect{list.mechanisms_};
    Problem problem;
    std::size_t octets = 0;
    for (auto i = message.find(id); i; i = message.find(id, *i + 1)) {
        const std::string_view value = message.field(*i).value;
        octets += value.size();
        if (octets > kMaxSecurityList) problem.what = kTooLong;
        if (problem.what != nullptr || !scan_list(value, collect, problem))
            return malformed(sip::to_string(id), problem);
    }
    if (id != HeaderId::security_client)
        if (const auto entry = find_equal_q(list.mechanisms_))
            return malformed(sip::to_string(id),
                             {.what = "two entries have the same q value", .entry = *entry, .parameter = {}});
    return list;
}

Result<SecurityList> SecurityList::parse(std::string_view value, bool is_server_list) {
    SecurityList list;
    Collect collect{list.mechanisms_};
    Problem problem;
    if (!scan_list(value, collect, problem)) return malformed("security list", problem);
    if (is_server_list)
        if (const auto entry = find_equal_q(list.mechanisms_))
            return malformed("security list",
                             {.what = "two entries have the same q value", .entry = *entry, .parameter = {}});
    return list;
}

std::string SecurityList::to_string() const {
    std::size_t size = 0;
    for (const Mechanism& mechanism : mechanisms_) {
        size += 2 + mechanism.name.size();
        for (const MechanismParameter& p : mechanism.parameters) size += 2 + p.name.size() + p.value.size();
    }
    std::string text;
    text.reserve(size);
    for (const Mechanism& mechanism : mechanisms_) {
        if (!text.empty()) text += ", ";
        text += mechanism.name;
        for (const MechanismParameter& p : mechanism.parameters) {
            text.append(";").append(p.name);
            if (p.has_value) text.append("=").append(p.value);
        }
    }
    return text;
}

std::optional<std::size_t> count_mechanisms(std::string_view value) {
    Ignore sink;
    Problem problem;
    return scan_list(value, sink, problem) ? std::optional(problem.entry) : std::nullopt;
}

}  // namespace gmgate::sip
