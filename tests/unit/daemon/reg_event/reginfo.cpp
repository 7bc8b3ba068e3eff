// Reginfo documents: read and limited, and what they mean for a contact of ours.
#include "tests/unit/daemon/reg_event/scscf.h"

using namespace gmgate;
using namespace gmgate::daemon;
using namespace gmgate::daemon::test;

namespace {

RegInfo parsed(const std::string& text) {
    const auto info = parse_reginfo(text);
    REQUIRE_MESSAGE(info.has_value(), info.error().text);
    return *info;
}
std::string why(std::string_view text, const RegInfoLimits& limits = {}) {
    const auto info = parse_reginfo(text, limits);
    return info ? "" : info.error().text;
}

}  // namespace

TEST_CASE("reginfo: a document of RFC 3680 with the GRUU extension and things of other namespaces") {
    const RegInfo info = parsed(document(registration("active", "shortened", " expires=\"60\"") +
                                             "<other xmlns=\"urn:x\"><contact state=\"?\"/></other>",
                                         7, "partial"));
    CHECK(info.version == 7);
    CHECK_FALSE(info.is_full);
    REQUIRE(info.registrations.size() == 1);
    CHECK(info.registrations[0].aor == "sip:alice@home.example");
    const auto& contact = info.registrations[0].contacts.at(0);
    CHECK(contact.uri == "sip:alice@192.0.2.7:1357");
    CHECK(contact.instance == "<urn:uuid:1>");
    CHECK(contact.is_active);
    CHECK(contact.event == "shortened");
    CHECK(contact.expires == seconds{60});
}

TEST_CASE("reginfo: hostile documents end with a reason") {
    CHECK(contains(why("<reginfo"), "line 1"));
    CHECK(contains(why("<presence xmlns=\"urn:ietf:params:xml:ns:pidf\"/>"), "not reginfo"));
    CHECK(contains(why("<!DOCTYPE reginfo [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;&a;&a;\">]>" + document("&b;")),
                   "DTD"));
    CHECK(contains(why("<!DOCTYPE reginfo SYSTEM \"file:///etc/passwd\">" + document("")), "DTD"));
    std::string deep;
    for (int i = 0; i < 40; ++i) deep += "<a>";
    CHECK(contains(why(document(deep)), "too deeply"));
    std::string many;
    for (int i = 0; i < 5000; ++i) many += "<a/>";
    CHECK(contains(why(document(many)), "too many elements"));
    CHECK(contains(why(document(std::string(70000, ' '))), "octets, more than"));
    CHECK(contains(why(document("", 0, "half")), "neither full nor partial"));
    CHECK(contains(why(document(registration("gone", "expired"))), "neither active nor terminated"));
    CHECK(contains(why(document(registration("active", "registered", " expires=\"x\""))), "no number"));
    CHECK(contains(why("<reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" state=\"full\"/>"), "version is no number"));
    CHECK(contains(why("<reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" version=\"4294967296\" state=\"full\"/>"),
                   "version is no number"));
    CHECK(contains(
        why(document("<registration aor=\"sip:a@b\" id=\"a\" state=\"active\"><contact id=\"1\" state=\"active\" "
                     "event=\"registered\"><uri>sip:a@c</uri><uri>sip:a@d</uri></contact></registration>")),
        "two URIs"));
    CHECK_FALSE(why("").empty());
}

namespace {

constexpr std::string_view kAlice = "sip:alice@home.example";

/// One contact of a document; "" leaves a parameter out.
std::string contact(std::string_view state, std::string_view uri, std::string_view instance = {},
                    std::string_view reg_id = {}) {
    const auto parameter = [](std::string_view name, std::string_view value) {
        return value.empty() ? std::string()
                             : fmt::format("<unknown-param name=\"{}\">\"&lt;{}&gt;\"</unknown-param>", name, value);
    };
    return fmt::format("<contact id=\"1\" state=\"{}\" event=\"registered\"><uri>{}</uri>{}{}</contact>", state, uri,
                       parameter("+sip.instance", instance),
                       reg_id.empty() ? "" : fmt::format("<unknown-param name=\"reg-id\">{}</unknown-param>", reg_id));
}
std::string of(std::string_view aor, const std::string& contacts, std::string_view state = "active") {
    return fmt::format("<registration aor=\"{}\" id=\"a\" state=\"{}\">{}</registration>", aor, state, contacts);
}
OwnContact ours(std::string_view uri, std::string_view instance = {}, std::string_view reg_id = {}) {
    return {.uri = uri, .instance = instance, .reg_id = reg_id, .source = std::nullopt, .identities = {kAlice}};
}
/// "ended", "active", or "" when the document says nothing of it.
std::string said(const std::string& inside, const OwnContact& contact) {
    const auto news = news_of(parsed(document(inside)), contact);
    return !news ? "" : news->is_terminated ? "ended" : "active";
}

}  // namespace

TEST_CASE(
    "C-52: a contact has ended when nothing holds it active: by its URI, and never against instance, reg-id or sos") {
    constexpr auto kUri = "sip:alice@192.0.2.7:1357";
    constexpr auto kInstance = "<urn:uuid:1>";
    const auto terminated = [](std::string_view uri, std::string_view instance = {}, std::string_view reg_id = {}) {
        return of(kAlice, contact("terminated", uri, instance, reg_id));
    };
    CHECK(said(terminated(kUri), ours(kUri)) == "ended");
    CHECK(said(terminated(kUri, "urn:uuid:1"), ours(kUri, kInstance)) == "ended");
    CHECK(said(terminated(kUri, "URN:UUID:1"), ours(kUri, kInstance)) == "ended");
    CHECK(said(terminated(kUri), ours(kUri, kInstance)) == "ended");  // a registrar that tells no instance
    CHECK(said(terminated(kUri, "urn:uuid:2"), ours(kUri, kInstance)).empty());
    CHECK(said(terminated("sip:alice@192.0.2.9:1357", "urn:uuid:1"), ours(kUri, kInstance)).empty());  // former address
    CHECK(said(terminated("sip:alice@192.0.2.9:1357", "urn:uuid:1", "1"), ours(kUri, kInstance, "1")).empty());
    CHECK(said(terminated("sip:alice@192.0.2.7:1358"), ours(kUri)).empty());
    CHECK(said(terminated(kUri, "urn:uuid:1", "2"), ours(kUri, kInstance, "1")).empty());  // another flow
    CHECK(said(terminated(kUri, "urn:uuid:1", "1"), ours(kUri, kInstance, "1")) == "ended");
    CHECK(said(terminated("sip:alice@192.0.2.7:1357;sos", "urn:uuid:1"), ours(kUri, kInstance)).empty());
    CHECK(said(terminated(kUri) + of(kAlice, contact("active", kUri)), ours(kUri)) == "active");
    CHECK(said(terminated(kUri) + of(kAlice, contact("active", "sip:alice@192.0.2.9")), ours(kUri)) == "ended");
    CHECK(said(of(kAlice, contact("active", kUri), "terminated"), ours(kUri)) == "ended");
}

TEST_CASE("C-52: a registration of another identity speaks of nothing of ours; one of any identity of the set does") {
    constexpr auto kUri = "sip:alice@192.0.2.7:1357";
    OwnContact own = ours(kUri);
    own.identities = {kAlice, "tel:+1-555-0100"};
    CHECK(said(of("sip:bob@home.example", contact("terminated", kUri)), own).empty());
    CHECK(said(of("sip:bob@home.example", {}, "terminated"), own).empty());
    CHECK(said(of("sip:bob@home.example", contact("active", kUri)) + of(kAlice, contact("terminated", kUri)), own) ==
          "ended");
    CHECK(said(of("sip:alice@HOME.example", {}, "terminated"), own) == "ended");
    CHECK(said(of(kAlice, {}, "init"), own).empty());
    CHECK(said(of("tel:+15550100", contact("terminated", kUri)), own) == "ended");
    CHECK(said(of(kAlice, contact("terminated", kUri)) + of("tel:+15550100", contact("active", kUri)), own) ==
          "active");
    CHECK(said("<registration id=\"a\" state=\"terminated\"/>", own).empty());  // of nobody
}

TEST_CASE("C-52: a contact's URI is ours however the registrar writes it") {
    OwnContact own = ours("sip:alice@[2001:db8::7]");
    CHECK(said(of(kAlice, contact("terminated", "sip:%61lice@[2001:0DB8:0:0::7]:5060")), own) == "ended");
    CHECK(said(of(kAlice, contact("terminated", "sip:alice@[2001:db8::8]")), own).empty());
    CHECK(said(of(kAlice, contact("terminated", "sip:alice@[2001:db8::7]:40000")), own).empty());
    own.source = Endpoint{*Address::parse("2001:db8::7"), Port{40000}};  // rport
    CHECK(said(of(kAlice, contact("terminated", "sip:alice@[2001:db8::7]:40000")), own) == "ended");
    CHECK(said(of(kAlice, contact("terminated", "")), own).empty());
    CHECK(said(of(kAlice, contact("terminated", "nonsense")), own).empty());
    const auto news = news_of(parsed(document(registration("active", "shortened", " expires=\"60\""))),
                              ours("sip:alice@192.0.2.7:1357"));
    REQUIRE(news.has_value());
    CHECK(news->expires == seconds{60});
}
