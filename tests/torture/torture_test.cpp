// RFC 4475: all 49 torture messages, byte for byte, against what the RFC says an element that is a proxy does with each of them.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/unit/daemon_proxy_network.h"
#include "tests/unit/daemon_register_bench.h"

using namespace gmgate;
using gmgate::daemon::test::Network;
using gmgate::sip::HeaderId;

namespace {

enum class Outcome {
    forwarded,  ///< the core gets it, every header field and the body octet for octet but for those that a proxy edits
    answered,   ///< with this status; nothing reaches the core
    discarded,  ///< no answer, nothing to the core
};

struct Expectation {
    const char* name;
    const char* section;
    const char* rfc;  ///< what the RFC says about it, in short
    Outcome outcome;
    int status = 0;
    const char* departs = nullptr;  ///< why we do otherwise than the RFC says first; null when we do not
};

constexpr Expectation kMessages[] = {
    {"wsinv", "3.1.1.1", "well-formed; folded lines, compact names, odd white space", Outcome::forwarded},
    {"intmeth", "3.1.1.2", "well-formed; every character that the grammar allows, an unknown method", Outcome::discarded, 0,
     "a NUL in the header section is refused (sip/README.md): C parsers behind us end a string there; RFC 3261 allows it as a quoted pair"},
    {"esc01", "3.1.1.3", "well-formed; %-escapes in the user part", Outcome::forwarded},
    {"escnull", "3.1.1.4", "well-formed; an escaped NUL in a URI is data", Outcome::forwarded},
    {"esc02", "3.1.1.5", "well-formed; RE%47IST%45R is an unknown method, not REGISTER", Outcome::forwarded},
    {"lwsdisp", "3.1.1.6", "well-formed; no white space between display name and <", Outcome::forwarded},
    {"longreq", "3.1.1.7", "well-formed; long values in many header fields", Outcome::forwarded},
    {"dblreq", "3.1.1.8", "well-formed; octets after the body in a datagram are ignored", Outcome::forwarded},
    {"semiuri", "3.1.1.9", "well-formed; the user part holds a semicolon", Outcome::forwarded},
    {"transports", "3.1.1.10", "well-formed; Via with unknown and various transports", Outcome::forwarded},
    {"mpart01", "3.1.1.11", "well-formed; a multipart body with binary octets", Outcome::forwarded},
    {"unreason", "3.1.1.12", "well-formed response with an unusual reason phrase; nobody waits for it", Outcome::discarded},
    {"noreason", "3.1.1.13", "well-formed response with an empty reason phrase; nobody waits for it", Outcome::discarded},
    {"badinv01", "3.1.2.1", "400: stray semicolons and commas in Via and Contact", Outcome::answered, 400},
    {"clerr", "3.1.2.2", "400 in a datagram: Content-Length is larger than the message", Outcome::answered, 400},
    {"ncl", "3.1.2.3", "400: a negative Content-Length", Outcome::answered, 400},
    {"scalar02", "3.1.2.4", "400: CSeq beyond its range", Outcome::answered, 400},
    {"scalarlg", "3.1.2.5", "a response with values beyond their range is discarded", Outcome::discarded},
    {"quotbal", "3.1.2.6", "400: the quoted string in To does not end", Outcome::answered, 400},
    {"ltgtruri", "3.1.2.7", "400: <> around the Request-URI", Outcome::answered, 400},
    {"lwsruri", "3.1.2.8", "400: white space inside the Request-URI", Outcome::answered, 400},
    {"lwsstart", "3.1.2.9", "400: more than one space in the start line", Outcome::answered, 400},
    {"trws", "3.1.2.10", "400: white space at the end of the start line", Outcome::answered, 400},
    {"escruri", "3.1.2.11", "400: header fields in the Request-URI; must never be forwarded in it", Outcome::answered, 400},
    {"baddate", "3.1.2.12", "a Date in another zone than GMT may be ignored by who does not need it", Outcome::forwarded},
    {"regbadct", "3.1.2.13", "400 by the registrar: a Contact with '?' outside <>", Outcome::forwarded, 0,
     "Contact is the registrar's: the gateway reads its address and hands it on untouched"},
    {"badaspec", "3.1.2.14", "400, or be liberal: white space inside <…> of To", Outcome::forwarded},
    {"baddn", "3.1.2.15", "400, or be liberal: an unquoted display name with a comma", Outcome::forwarded},
    {"badvers", "3.1.2.16", "505: SIP/7.0", Outcome::answered, 505},
    {"mismatch01", "3.1.2.17", "400: method of start line and CSeq differ", Outcome::answered, 400},
    {"mismatch02", "3.1.2.18", "400 (or 501): the same with an unknown method", Outcome::answered, 400},
    {"bigcode", "3.1.2.19", "a response with status 4294967301 is discarded", Outcome::discarded},
    {"badbranch", "3.2.1", "a branch that is the bare cookie: matched as RFC 2543 does", Outcome::forwarded},
    {"insuf", "3.3.1", "400, or nothing: From, To, Call-ID and Max-Forwards are missing", Outcome::discarded, 0,
     "no response can be made of it: RFC 3261 §8.2.6 wants From, To and Call-ID copied from the request"},
    {"unkscm", "3.3.2", "416: unknown scheme in the Request-URI; the To does not matter", Outcome::answered, 416},
    {"novelsc", "3.3.3", "416: a known scheme that SIP does not route", Outcome::answered, 416},
    {"unksm2", "3.3.4", "400 or 404 by the registrar, not by a proxy: unknown schemes in To, From and Contact", Outcome::forwarded},
    {"bext01", "3.3.5", "420 by a proxy, naming both option tags of Proxy-Require", Outcome::answered, 420},
    {"invut", "3.3.6", "415 by the endpoint: a body that a proxy does not look at", Outcome::forwarded},
    {"regaut01", "3.3.7", "an unknown authorization scheme is no credentials: the registrar challenges", Outcome::forwarded},
    {"multi01", "3.3.8", "400: several values where there may be one", Outcome::answered, 400},
    {"mcl01", "3.3.9", "400: two Content-Lengths that differ", Outcome::answered, 400},
    {"bcast", "3.3.10", "a response whose Via names a broadcast address is discarded", Outcome::discarded},
    {"zeromf", "3.3.11", "483: Max-Forwards is 0", Outcome::answered, 483},
    {"cparam01", "3.3.12", "unknown parameters of Contact are the registrar's", Outcome::forwarded},
    {"cparam02", "3.3.13", "unknown parameters of the Contact's URI are the registrar's", Outcome::forwarded},
    {"regescrt", "3.3.14", "a Route escaped in Contact's URI is part of the binding", Outcome::forwarded},
    {"sdp01", "3.3.15", "406 by the endpoint: Accept is no concern of a proxy", Outcome::forwarded},
    {"inv2543", "3.4.1", "a request of RFC 2543 without branch, tag and Max-Forwards is handled", Outcome::forwarded},
};
static_assert(std::size(kMessages) == 49);

std::string read(const std::string& name) {
    std::ifstream file(std::string(GMGATE_TORTURE) + "/" + name + ".dat", std::ios::binary);
    REQUIRE_MESSAGE(file, name);
    return {std::istreambuf_iterator<char>(file), {}};
}

struct Seen {
    std::string to_core{}, answer{};
    int more_to_core = 0;
};

/// A 100 is no outcome.
bool is_outcome(const std::string& text) { return !text.starts_with("SIP/2.0 100"); }

/// What becomes of it when a registered phone sends it over its SAs. The core answers nothing.
Seen over_sas(const std::string& bytes) {
    Network world;
    Seen seen;
    const auto phone_gets = [&] {  // at port_us, or, when the transport layer answers by itself, where it sent from
        auto text = world.ue_server.try_receive();
        return text ? text : world.ue_client.try_receive();
    };
    const auto look = [&] {
        while (auto text = world.core_peer.try_receive()) seen.to_core.empty() ? void(seen.to_core = *text) : void(++seen.more_to_core);
        while (auto text = phone_gets())
            if (is_outcome(*text)) seen.answer = *text;
        return !seen.to_core.empty() || !seen.answer.empty();
    };
    world.ue_client.send(bytes, world.ps);
    // An OPTIONS behind it tells that everything before it is done: the gateway takes datagrams in turn.
    const std::string end = daemon::test::crlf("OPTIONS sip:end@example.net SIP/2.0\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKend\nMax-Forwards: 0\n"
                                               "From: <sip:a@example.net>;tag=1\nTo: <sip:end@example.net>\nCall-ID: end\nCSeq: 1 OPTIONS\nContent-Length: 0\n\n");
    look();
    world.ue_client.send(end, world.ps);
    bool ended = false;
    std::string answer;
    REQUIRE(world.loop.until([&] {
        while (auto text = phone_gets()) {
            if (daemon::test::contains(*text, "Call-ID: end\r\n")) ended = true;
            else if (is_outcome(*text)) answer = *text;
        }
        return ended;
    }));
    if (!answer.empty()) seen.answer = answer;
    world.loop.until(look, std::chrono::milliseconds{50});  // what was forwarded was sent before the end was answered
    look();
    return seen;
}

/// A REGISTER on an interface without sec-agree: every check of syntax, none of the agreement.
Seen as_register(const std::string& bytes) {
    gmgate::test::RegisterBench bench([](daemon::Config& config) { config.sip_interfaces.front().sec_agree_feature = false; });
    bench.core_status = 404;
    const auto transaction = bench.send_text(bytes, bench.unprotected());
    Seen seen;
    if (!bench.core_saw.empty()) {
        seen.to_core = bench.core_saw.front();
        seen.more_to_core = static_cast<int>(bench.core_saw.size()) - 1;
        REQUIRE(gmgate::test::RegisterBench::status_of(*transaction) == 404);
    } else if (!transaction->responses.empty()) {
        seen.answer = transaction->responses.back();
    }
    return seen;
}

/// What a proxy, a P-CSCF in particular, changes or takes away.
const std::set<HeaderId> kEdited{HeaderId::via, HeaderId::max_forwards, HeaderId::route, HeaderId::record_route, HeaderId::proxy_require, HeaderId::require, HeaderId::content_length};

void check_untouched(const std::string& sent, const std::string& forwarded) {
    const auto before = sip::Message::parse(sent), after = sip::Message::parse(forwarded);
    REQUIRE(before.has_value());
    REQUIRE(after.has_value());
    CHECK(after->method_name() == before->method_name());
    CHECK(after->request_uri() == before->request_uri());
    CHECK(after->body() == before->body());
    CHECK(sip::via_count(*after) == sip::via_count(*before) + 1);
    CHECK(after->has(HeaderId::max_forwards));
    for (std::size_t i = 0; i < before->field_count(); ++i) {
        const auto field = before->field(i);
        if (kEdited.contains(field.id)) continue;
        const std::string_view octets = before->bytes().substr(field.begin, field.end - field.begin);
        INFO(std::string(octets));
        CHECK(daemon::test::contains(forwarded, octets));
    }
}

}  // namespace

TEST_CASE("RFC 4475: every message of the folder has an expectation, and every expectation a message") {
    std::set<std::string> files, names;
    for (const auto& entry : std::filesystem::directory_iterator(GMGATE_TORTURE))
        if (entry.path().extension() == ".dat") files.insert(entry.path().stem());
    for (const auto& expectation : kMessages) names.insert(expectation.name);
    CHECK(files == names);
    CHECK(names.size() == 49);
}

TEST_CASE("RFC 4475: each torture message gets what the RFC says") {
    for (const auto& expected : kMessages) {
        SUBCASE(expected.name) {
            const std::string bytes = read(expected.name);
            const auto parsed = sip::Message::parse(bytes);
            const std::string verdict = std::string(expected.section) + " " + expected.rfc + (parsed ? "" : " - parser: " + std::string(parsed.error().reason));
            INFO(verdict);
            const bool is_register = parsed && parsed->is_request() && parsed->method() == sip::Method::register_;
            const Seen seen = is_register ? as_register(bytes) : over_sas(bytes);
            INFO("to the core: ", seen.to_core, "\nanswer: ", seen.answer);
            CHECK(seen.more_to_core == 0);
            switch (expected.outcome) {
                case Outcome::forwarded:
                    CHECK(seen.answer.empty());
                    REQUIRE_FALSE(seen.to_core.empty());
                    check_untouched(bytes, seen.to_core);
                    break;
                case Outcome::answered:
                    CHECK(seen.to_core.empty());
                    REQUIRE_FALSE(seen.answer.empty());
                    CHECK(seen.answer.substr(0, 12) == "SIP/2.0 " + std::to_string(expected.status) + " ");
                    if (expected.status == 420) CHECK(daemon::test::contains(seen.answer, "Unsupported: noProxiesSupportThis, norDoAnyProxiesSupportThis\r\n"));
                    break;
                case Outcome::discarded:
                    CHECK(seen.to_core.empty());
                    CHECK(seen.answer.empty());
                    break;
            }
        }
    }
}
