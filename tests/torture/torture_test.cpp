// RFC 4475: all 49 torture messages, byte for byte, against what the RFC says an element that is a proxy does with each
// of them.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/unit/daemon/agreement/register_bench.h"
#include "tests/unit/daemon/proxy/network.h"

using namespace gmgate;
using gmgate::daemon::test::ProxyNetwork;
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
    {"wsinv", "3.1.1.1", "well-formed for every element; an unknown field with an odd value is forwarded unchanged",
     Outcome::forwarded},
    {"intmeth", "3.1.1.2", "well-formed; a proxy forwards it, or answers 404 when the URI is none of its own",
     Outcome::discarded, 0,
     "a NUL in the header section is refused (sip/README.md): C parsers behind us end a string there; RFC 3261 allows it as a quoted pair"},
    {"esc01", "3.1.1.3", "well-formed; %HH counts as the character only where the grammar has \"escaped\"",
     Outcome::forwarded},
    {"escnull", "3.1.1.4", "well-formed; an escaped NUL must not end the user part early", Outcome::forwarded},
    {"esc02", "3.1.1.5",
     "well-formed; RE%47IST%45R is an unknown method; forwarded or rejected by what the Request-URI means",
     Outcome::forwarded},
    {"lwsdisp", "3.1.1.6", "a mistake of the grammar: accepted without white space between display name and <",
     Outcome::forwarded},
    {"longreq", "3.1.1.7", "well-formed; long values in many header fields", Outcome::forwarded},
    {"dblreq", "3.1.1.8",
     "the octets after the body are noise (RFC 3261 §18.3) and must not appear in what is forwarded",
     Outcome::forwarded},
    {"semiuri", "3.1.1.9", "well-formed; the semicolon belongs to the user part", Outcome::forwarded},
    {"transports", "3.1.1.10", "well-formed; the transports in lower Via values do not matter", Outcome::forwarded},
    {"mpart01", "3.1.1.11", "well-formed; a multipart body with NUL octets, whatever is known of multipart/signed",
     Outcome::forwarded},
    {"unreason", "3.1.1.12", "well-formed response, any reason phrase; nobody waits for it here", Outcome::discarded},
    {"noreason", "3.1.1.13", "well-formed response without a reason phrase; nobody waits for it here",
     Outcome::discarded},
    {"badinv01", "3.1.2.1", "400: stray semicolons and commas in Via and Contact", Outcome::answered, 400},
    {"clerr", "3.1.2.2",
     "400 in a datagram, Content-Length being larger than the body (a stream waits, and closes in the end)",
     Outcome::answered, 400},
    {"ncl", "3.1.2.3", "an error: a negative Content-Length (a stream is closed)", Outcome::answered, 400},
    {"scalar02", "3.1.2.4", "400 for CSeq alone; Max-Forwards and Expires out of range could be read as absent",
     Outcome::answered, 400},
    {"scalarlg", "3.1.2.5", "a response with values beyond their range is discarded", Outcome::discarded},
    {"quotbal", "3.1.2.6", "400: the quoted string in To does not end (or infer the quote)", Outcome::answered, 400},
    {"ltgtruri", "3.1.2.7", "400, always reasonable: <> around the Request-URI; never forwarded with them",
     Outcome::answered, 400},
    {"lwsruri", "3.1.2.8", "400: white space inside the Request-URI", Outcome::answered, 400},
    {"lwsstart", "3.1.2.9", "may be rejected: more than one space in the start line; never forwarded with them",
     Outcome::answered, 400},
    {"trws", "3.1.2.10", "may be rejected: white space at the end of the start line; never forwarded with it",
     Outcome::answered, 400},
    {"escruri", "3.1.2.11",
     "400 is acceptable: header fields in the Request-URI, which must not be forwarded, least of all as header fields",
     Outcome::answered, 400},
    {"baddate", "3.1.2.12", "a Date in another zone than GMT should not be rejected by who does not need it",
     Outcome::forwarded},
    {"regbadct", "3.1.2.13", "400 is reasonable: a Contact with '?' outside <>; <> may be inferred", Outcome::forwarded,
     0, "Contact is the registrar's: the gateway reads its address and hands it on untouched"},
    {"badaspec", "3.1.2.14", "400 is reasonable, ignoring the spaces inside <…> of To as well", Outcome::forwarded},
    {"baddn", "3.1.2.15",
     "400, always reasonable: a comma in display names without quotes; a proxy must not pass the error on",
     Outcome::answered, 400},
    {"badvers", "3.1.2.16", "505: SIP/7.0", Outcome::answered, 505},
    {"mismatch01", "3.1.2.17", "400: method of start line and CSeq differ", Outcome::answered, 400},
    {"mismatch02", "3.1.2.18", "501, better at proxies than 400: the same with an unknown method", Outcome::answered,
     501},
    {"bigcode", "3.1.2.19", "a response with a status beyond 699 is dropped", Outcome::discarded},
    {"badbranch", "3.2.1", "400, or matched as RFC 2543 does: a branch that is the bare cookie", Outcome::forwarded},
    {"insuf", "3.3.1", "ideally 400: no Call-ID, From and To", Outcome::discarded, 0,
     "no response can be made of it: RFC 3261 §8.2.6 wants From, To and Call-ID copied from the request"},
    {"unkscm", "3.3.2", "416: unknown scheme in the Request-URI; the To does not matter", Outcome::answered, 416},
    {"novelsc", "3.3.3", "416 by who never routes that scheme, 404 by who may", Outcome::answered, 416},
    {"unksm2", "3.3.4",
     "proxies treat it like any request for that URI; a registrar answers 400 (the AOR is no SIP URI)",
     Outcome::forwarded},
    {"bext01", "3.3.5", "420 by a proxy, naming both option tags of Proxy-Require", Outcome::answered, 420},
    {"invut", "3.3.6", "a proxy handles it like any INVITE; 415 by the endpoint", Outcome::forwarded},
    {"regaut01", "3.3.7", "a proxy forwards the unknown Authorization unmodified; a registrar challenges or ignores it",
     Outcome::forwarded},
    {"multi01", "3.3.8", "400: several values where there may be one", Outcome::answered, 400},
    {"mcl01", "3.3.9", "an error: two Content-Lengths that differ (a stream is closed)", Outcome::answered, 400},
    {"bcast", "3.3.10", "a proxy should drop a response whose next Via is a broadcast address", Outcome::discarded},
    {"zeromf", "3.3.11", "483 by a proxy: Max-Forwards is 0", Outcome::answered, 483},
    {"cparam01", "3.3.12", "succeeds at the registrar; an unknown parameter behind <> belongs to the Contact",
     Outcome::forwarded},
    {"cparam02", "3.3.13", "succeeds at the registrar; an unknown parameter of the URI belongs to the binding",
     Outcome::forwarded},
    {"regescrt", "3.3.14", "succeeds at the registrar; a Route escaped in the URI is part of the binding",
     Outcome::forwarded},
    {"sdp01", "3.3.15", "406 or 400 by the endpoint: no SDP among what it accepts", Outcome::forwarded},
    {"inv2543", "3.4.1", "legal in RFC 2543, should be accepted: no branch, tag and Max-Forwards", Outcome::forwarded},
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
    ProxyNetwork world;
    Seen seen;
    const auto phone_gets = [&] {  // at port_us, or, when the transport layer answers by itself, where it sent from
        auto text = world.ue_server.try_receive();
        return text ? text : world.ue_client.try_receive();
    };
    const auto look = [&] {
        while (auto text = world.core_peer.try_receive())
            seen.to_core.empty() ? void(seen.to_core = *text) : void(++seen.more_to_core);
        while (auto text = phone_gets())
            if (is_outcome(*text)) seen.answer = *text;
        return !seen.to_core.empty() || !seen.answer.empty();
    };
    world.ue_client.send(bytes, world.ps);
    // An OPTIONS behind it tells that everything before it is done: the gateway takes datagrams in turn.
    const std::string end = daemon::test::crlf(
        "OPTIONS sip:end@example.net SIP/2.0\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKend\nMax-Forwards: 0\n"
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

/// A REGISTER on an interface that demands no agreement: every check of syntax, none of the agreement.
Seen as_register(const std::string& bytes) {
    gmgate::test::RegisterBench bench([](daemon::Config& config) {
        config.sip_interfaces.front().no_security_client = daemon::NoSecurityClient::forward;
    });
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
const std::set<HeaderId> kEdited{HeaderId::via,           HeaderId::max_forwards,  HeaderId::route,
                                 HeaderId::record_route,  HeaderId::proxy_require, HeaderId::require,
                                 HeaderId::content_length};

void check_untouched(const std::string& sent, const std::string& forwarded) {
    const auto before = sip::Message::parse(sent), after = sip::Message::parse(forwarded);
    REQUIRE(before.has_value());
    REQUIRE(after.has_value());
    CHECK(after->method_name() == before->method_name());
    CHECK(after->request_uri() == before->request_uri());
    CHECK(after->body() == before->body());
    CHECK(after->bytes().size() == forwarded.size());  // nothing behind the body (3.1.1.8)
    CHECK(sip::via_count(*after) == sip::via_count(*before) + 1);
    CHECK(after->has(HeaderId::max_forwards));
    for (std::size_t i = 0; i < before->field_count(); ++i) {
        const auto field = before->field(i);
        if (kEdited.contains(field.id)) continue;
        const std::string_view octets = before->bytes().substr(field.begin, field.end - field.begin);
        INFO(std::string(octets));
        // On one line in any case (sip/message/edit.cpp); number and method are those that came.
        const bool is_folded_cseq = field.id == HeaderId::cseq && field.value.find('\n') != std::string_view::npos;
        if (is_folded_cseq) CHECK(after->cseq() == before->cseq());
        else CHECK(daemon::test::contains(forwarded, octets));
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
            const std::string verdict = std::string(expected.section) + " " + expected.rfc +
                                        (parsed ? "" : " - parser: " + std::string(parsed.error().reason));
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
                    if (expected.status == 420)
                        CHECK(daemon::test::contains(
                            seen.answer, "Unsupported: noProxiesSupportThis, norDoAnyProxiesSupportThis\r\n"));
                    break;
                case Outcome::discarded:
                    CHECK(seen.to_core.empty());
                    CHECK(seen.answer.empty());
                    break;
            }
        }
    }
}
