// Issue 14: whatever a phone writes, every reader behind us sees the identity that we checked, or nothing at all. The
// readers here are independent of sip/: each takes the message apart in its own crude way, as parsers in the field do.
#include <algorithm>
#include <array>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "daemon/agreement/checks.h"
#include "daemon/rules/call_rules.h"
#include "daemon/rules/header_rules.h"
#include "daemon/rules/request_syntax.h"
#include "tests/unit/daemon/proxy/support.h"

using namespace gmgate;
using namespace gmgate::daemon;
using namespace gmgate::daemon::test;

namespace {

constexpr const char* kMine = "alice@ims.example";
constexpr const char* kMyUri = "sip:alice@ims.example";

/// How a reader behind us takes a message apart.
struct Reader {
    bool takes_lf = false;      ///< a bare LF ends a line, too
    bool takes_last = false;    ///< of several fields or parameters the last one counts, else the first one
    bool knows_quotes = true;   ///< quoted strings are one thing
    bool knows_escapes = true;  ///< a backslash escapes in them
};
constexpr std::array<Reader, 10> kReaders{{{false, false, true, true},
                                           {false, true, true, true},
                                           {true, false, true, true},
                                           {true, true, true, true},
                                           {false, false, false, false},
                                           {false, true, false, false},
                                           {true, true, false, false},
                                           {true, false, false, false},
                                           {false, false, true, false},
                                           {false, true, true, false}}};

std::string trimmed(const std::string& text) {
    const auto begin = text.find_first_not_of(" \t\r\n");
    return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

/// The header lines up to the empty one, folds joined.
std::vector<std::string> lines_of(const std::string& text, const Reader& reader) {
    std::vector<std::string> lines;
    for (std::size_t at = 0; at < text.size();) {
        std::size_t end = text.find(reader.takes_lf ? "\n" : "\r\n", at);
        if (end == std::string::npos) break;
        std::string line = text.substr(at, end - at);
        at = end + (reader.takes_lf ? 1 : 2);
        if (reader.takes_lf && line.ends_with('\r')) line.pop_back();
        if (line.empty()) break;
        if ((line[0] == ' ' || line[0] == '\t') && !lines.empty()) lines.back() += line;
        else lines.push_back(line);
    }
    return lines;
}

std::vector<std::string> fields_of(const std::string& text, const std::string& name, const std::string& compact,
                                   const Reader& reader) {
    std::vector<std::string> values;
    for (const auto& line : lines_of(text, reader)) {
        const auto colon = line.find(':');
        if (colon == std::string::npos) continue;
        const auto found = lower(trimmed(line.substr(0, colon)));
        if (found == name || found == compact) values.push_back(trimmed(line.substr(colon + 1)));
    }
    return values;
}

/// All values of one parameter in credentials.
std::vector<std::string> parameters_of(const std::string& credentials, const std::string& name, const Reader& reader) {
    std::vector<std::string> values;
    std::string part;
    std::vector<std::string> parts;
    bool quoted = false;
    for (std::size_t i = 0; i < credentials.size(); ++i) {
        const char c = credentials[i];
        if (reader.knows_quotes && quoted && reader.knows_escapes && c == '\\' && i + 1 < credentials.size())
            part += c, part += credentials[++i];
        else if (c == ',' && !(quoted && reader.knows_quotes)) parts.push_back(part), part.clear();
        else part += c, quoted = c == '"' ? !quoted : quoted;
    }
    parts.push_back(part);
    for (auto& each : parts) {
        const auto equal = each.find('=');
        if (equal == std::string::npos) continue;
        auto word = lower(trimmed(each.substr(0, equal)));
        if (const auto blank = word.find_last_of(" \t\r\n"); blank != std::string::npos) word.erase(0, blank + 1);
        if (word != name) continue;
        auto value = trimmed(each.substr(equal + 1));
        if (value.starts_with('"')) value = value.substr(1, value.find('"', 1) - 1);
        values.push_back(value);
    }
    return values;
}

std::string pick(const std::vector<std::string>& values, const Reader& reader) {
    return values.empty() ? "" : reader.takes_last ? values.back() : values.front();
}

/// The URI in To.
std::string address_of(const std::string& to, const Reader& reader) {
    std::size_t open = std::string::npos;
    bool quoted = false;
    for (std::size_t i = 0; i < to.size(); ++i) {
        if (reader.knows_quotes && quoted && reader.knows_escapes && to[i] == '\\') ++i;
        else if (to[i] == '"') quoted = !quoted;
        else if (to[i] == '<' && !(quoted && reader.knows_quotes) && (open == std::string::npos || reader.takes_last))
            open = i;
    }
    if (open != std::string::npos) return trimmed(to.substr(open + 1, to.find('>', open) - open - 1));
    if (const auto comma = to.find(','); comma != std::string::npos)
        return trimmed(reader.takes_last ? to.substr(to.rfind(',') + 1) : to.substr(0, comma));
    return trimmed(to.substr(0, to.find(';')));
}

struct Passed {
    std::string text;      ///< what the core gets
    std::string username;  ///< what was checked
    std::string to;
};

/// The way of a REGISTER of alice over her SAs, as far as identities go: parse, read once, check, write.
std::optional<Passed> pass_register(const std::string& bytes) {
    const auto message = sip::OwnedMessage::parse(bytes);
    if (!message || message->operator*().method() != sip::Method::register_) return std::nullopt;
    const auto& request = **message;
    RegisterToCore rules;
    rules.received = udp_flow("192.0.2.1:6100", "198.51.100.7:5062");
    rules.via_host = "10.0.0.1:5060";
    rules.branch = "z9hG4bKours";
    rules.path_uri = "sip:token@10.0.0.1;lr";
    rules.credentials = sip::RequestCredentials::read(request);
    rules.integrity_protected = "yes";
    if (check_syntax(request) || check_unambiguous(request, rules.credentials)) return std::nullopt;
    if (check_identity(rules.credentials.authorization, Impi{kMine})) return std::nullopt;
    auto text = register_to_core(request, rules);
    if (!text) return std::nullopt;
    const auto to = sip::NameAddr::parse(request.value(sip::HeaderId::to));
    return Passed{std::move(*text), std::string(rules.credentials.authorization.username()), std::string(to->uri)};
}

/// What every reader must see of a REGISTER that has passed.
void check_readers(const Passed& passed) {
    for (const Reader& reader : kReaders) {
        INFO(passed.text);
        CAPTURE(reader.takes_lf);
        CAPTURE(reader.takes_last);
        CAPTURE(reader.knows_quotes);
        const auto credentials = fields_of(passed.text, "authorization", "authorization", reader);
        REQUIRE(credentials.size() == 1);
        for (const auto* name : {"username", "integrity-protected"})
            REQUIRE(parameters_of(credentials[0], name, reader).size() == 1);
        REQUIRE(pick(parameters_of(credentials[0], "username", reader), reader) == passed.username);
        REQUIRE(pick(parameters_of(credentials[0], "integrity-protected", reader), reader) == "yes");
        for (const auto& proxy : fields_of(passed.text, "proxy-authorization", "proxy-authorization", reader)) {
            REQUIRE(parameters_of(proxy, "integrity-protected", reader).empty());
            for (const auto& name : parameters_of(proxy, "username", reader)) REQUIRE(name == passed.username);
        }
        const auto to = fields_of(passed.text, "to", "t", reader);
        REQUIRE(to.size() == 1);
        REQUIRE(address_of(to[0], reader) == passed.to);
        REQUIRE(fields_of(passed.text, "p-asserted-identity", "p-asserted-identity", reader).empty());
    }
}

std::string register_with(const std::string& to, const std::string& authorization, const std::string& more = "") {
    return crlf(
        "REGISTER sip:ims.example SIP/2.0\nVia: SIP/2.0/UDP 198.51.100.7:5062;branch=z9hG4bKx\nMax-Forwards: 70\nFrom: "
        "<sip:alice@ims.example>;tag=1\nTo: " +
        to + "\nCall-ID: c1\nCSeq: 2 REGISTER\nContact: <sip:alice@198.51.100.7:5063>;expires=600\n" + authorization +
        more + "Content-Length: 0\n\n");
}

const std::string kGood =
    "Authorization: Digest "
    "username=\"alice@ims.example\",realm=\"ims.example\",nonce=\"bm9uY2U=\",uri=\"sip:ims.example\",response="
    "\"6629fae4\"\n";

class Dice {
public:
    explicit Dice(std::uint32_t seed) : engine_(seed) {}
    std::size_t below(std::size_t n) { return std::uniform_int_distribution<std::size_t>(0, n - 1)(engine_); }
    template <class List>
    const auto& one_of(const List& list) {
        return list[below(list.size())];
    }

private:
    std::mt19937 engine_;
};

}  // namespace

TEST_CASE("what an honest phone sends passes, and every reader sees it") {
    for (const auto* to : {"<sip:alice@ims.example>", "\"Alice\" <sip:alice@ims.example>", "sip:alice@ims.example"}) {
        const auto passed = pass_register(register_with(to, kGood));
        REQUIRE(passed);
        CHECK(passed->to == kMyUri);
        check_readers(*passed);
    }
}

TEST_CASE("the account takeover, in every spelling, does not pass") {
    const std::string to = "<sip:victim@ims.example>";
    const std::string bad =
        "Authorization: Digest "
        "username=\"victim@ims.example\",realm=\"ims.example\",nonce=\"bm9uY2U=\",uri=\"sip:ims.example\",response="
        "\"66\"";
    for (const std::string& authorization :
         {bad + ",@@\n" + kGood, kGood + bad + "\n", bad + "\n" + kGood,
          "aUTHORIZATION : " + bad.substr(15) + "\n" + kGood,
          std::string("Authorization: Digest "
                      "username=\"alice@ims.example\",realm=\"r\",username=\"victim@ims.example\",response=\"1\"\n"),
          std::string("Authorization: Digest "
                      "username=\"victim@ims.example\",realm=\"r\",username=\"alice@ims.example\",response=\"1\"\n"),
          std::string("Authorization: Digest username=\"alice@ims.example\",realm=\"\\\", "
                      "username=\\\"victim@ims.example\",response=\"1\"\n"),
          kGood + "Proxy-Authorization: Digest username=\"victim@ims.example\",response=\"1\"\n"})
        CHECK_MESSAGE(!pass_register(register_with(to, authorization)), authorization);
    std::string smuggled = register_with(to, kGood, "Subject: x@" + bad.substr(0, bad.size()) + "\n");
    smuggled.replace(smuggled.find("x@"), 2, "x\n");
    CHECK_FALSE(pass_register(smuggled));
}

TEST_CASE("whatever a phone writes, every reader behind us sees what we checked, or nothing") {
    const std::vector<std::string> spices{"\"",
                                          "\\",
                                          "\\\"",
                                          ",",
                                          ";",
                                          "=",
                                          "<",
                                          ">",
                                          " ",
                                          "\t",
                                          "\r",
                                          "\n",
                                          "\r\n ",
                                          "\r\n",
                                          "%75",
                                          "?",
                                          "@",
                                          "Digest ",
                                          "username=",
                                          "USERNAME = ",
                                          "\"victim@ims.example\"",
                                          "victim@ims.example",
                                          "<sip:victim@ims.example>",
                                          ", sip:victim@ims.example",
                                          ";tag=2",
                                          "integrity-protected=yes",
                                          ",username=\"victim@ims.example\"",
                                          "\r\nAuthorization: Digest username=\"victim@ims.example\"",
                                          "\nAuthorization: Digest username=\"victim@ims.example\"\r\n",
                                          "\r\nTo: <sip:victim@ims.example>",
                                          "\nt: <sip:victim@ims.example>\n",
                                          "\r\nP-Asserted-Identity: <sip:victim@ims.example>",
                                          "\nP-Asserted-Identity: <sip:v@x>",
                                          "\r\nProxy-Authorization: Digest username=victim@ims.example",
                                          std::string(1, '\0'),
                                          "\xc2\xa0",
                                          "\x0b"};
    Dice dice(20261128);
    int passed = 0;
    for (int round = 0; round < 60000; ++round) {
        std::string bytes =
            register_with(round % 2 == 0 ? "\"A\" <sip:alice@ims.example>;x=1" : "sip:alice@ims.example", kGood);
        // Most of the changes go where the identity stands.
        const auto to = bytes.find("To: "), authorization = bytes.find("Authorization: ");
        for (std::size_t changes = 1 + dice.below(4); changes > 0; --changes) {
            const std::array<std::size_t, 3> from{to, authorization, 0}, length{40, 130, bytes.size()};
            const std::size_t where = dice.below(3),
                              at = std::min(from[where] + dice.below(length[where]), bytes.size());
            if (dice.below(4) == 0) bytes.erase(at, 1 + dice.below(3));
            else bytes.insert(at, dice.one_of(spices));
        }
        const auto result = pass_register(bytes);
        if (!result) continue;
        ++passed;
        INFO(bytes);
        check_readers(*result);
    }
    CHECK(passed > 500);  // it is not that everything is refused
}

TEST_CASE("the identity that is asserted is the phone's, whatever else a MESSAGE says") {
    const std::string text = crlf(
        "MESSAGE sip:bob@ims.example SIP/2.0\nVia: SIP/2.0/UDP 198.51.100.7:5062;branch=z9hG4bKx\nMax-Forwards: "
        "70\nFrom: <sip:victim@ims.example>;tag=1\n"
        "To: <sip:bob@ims.example>\nCall-ID: c1\nCSeq: 2 MESSAGE\nP-Preferred-Identity: "
        "<sip:victim@ims.example>\nP-Asserted-Identity: <sip:victim@ims.example>\n"
        "Proxy-Authorization: Digest "
        "username=\"alice@ims.example\",integrity-protected=\"yes\",response=\"1\"\nContent-Length: 0\n\n");
    const auto message = parse(text);
    ToCore rules;
    rules.received = udp_flow("192.0.2.1:6100", "198.51.100.7:5062");
    rules.via_host = "10.0.0.1:5060";
    rules.is_initial = true;
    rules.registered = {Impu(kMyUri)};
    rules.credentials = sip::RequestCredentials::read(*message);
    REQUIRE_FALSE(check_unambiguous(*message, rules.credentials));
    const auto out = request_to_core(*message, rules, sip::Transport::udp);
    for (const Reader& reader : kReaders) {
        CHECK(fields_of(out, "p-asserted-identity", "p-asserted-identity", reader) ==
              std::vector<std::string>{"<sip:alice@ims.example>"});
        CHECK(fields_of(out, "p-preferred-identity", "", reader).empty());
        CHECK(fields_of(out, "proxy-authorization", "", reader) ==
              std::vector<std::string>{"Digest username=\"alice@ims.example\", response=\"1\""});
    }
    ToCore without = rules;
    without.credentials = {};
    CHECK_FALSE(contains(request_to_core(*message, without, sip::Transport::udp),
                         "Digest"));  // what nobody has checked does not pass
}
