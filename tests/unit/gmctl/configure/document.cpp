// Editing TOML in place: what is touched, and that nothing else is.
#include <doctest/doctest.h>

#include "tests/unit/gmctl/configure/support.h"

using namespace gmgate;
using namespace gmgate::daemon::configure;

namespace {

const Path kInterface = {{"sip-interface", 0}};

Document document(std::string text = kRealm01) {
    auto parsed = Document::parse(std::move(text), "t.toml");
    REQUIRE_MESSAGE(parsed.has_value(), parsed.error().text);
    return std::move(*parsed);
}

}  // namespace

TEST_CASE("A value is replaced where it stands, comments and blanks around it kept") {
    auto doc = document();
    REQUIRE(doc.set({{"core"}}, "next-hop", "\"10.2.0.9:5060\""));
    CHECK(doc.text() == replaced(kRealm01, "10.2.0.2:5060", "10.2.0.9:5060"));
    REQUIRE(doc.set({}, "log-level", "\"debug\""));
    CHECK(doc.text() == replaced(replaced(kRealm01, "10.2.0.2:5060", "10.2.0.9:5060"), "\"info\"", "\"debug\""));
}

TEST_CASE("A value over several lines is replaced whole") {
    auto doc = document();
    REQUIRE(doc.set({{"ims-aka-profile", 0}}, "protected-server-port", "[7100, 7101]"));
    CHECK(doc.text() == replaced(kRealm01, "[6100,       # first\n                         6101]", "[7100, 7101]"));
}

TEST_CASE("Columns are code points: a value behind letters of two and three bytes is found") {
    auto doc = document("\"é€\" = 1\nlist = [\"ü€\", \"b\"] # é\nx = 2\n");
    REQUIRE(doc.set({}, "list", "[]"));
    CHECK(doc.text() == "\"é€\" = 1\nlist = [] # é\nx = 2\n");
}

TEST_CASE("A new key goes below its commented default and that comment's further lines") {
    auto doc = document();
    REQUIRE(doc.set(kInterface, "sec-agree-feature", "\"enabled\""));
    CHECK(doc.text() == replaced(kRealm01, "# the default\n", "# the default\nsec-agree-feature = \"enabled\"\n"));
    REQUIRE(doc.set(kInterface, "no-security-client", "\"reject\""));
    CHECK(doc.text().find("# forward or reject\nno-security-client = \"reject\"\n") != std::string::npos);
}

TEST_CASE("A new key without a commented default goes behind the last key of its table, not into the table below") {
    auto doc = document();
    REQUIRE(doc.set(kInterface, "host", "\"pcscf.example\""));
    CHECK(doc.text() ==
          replaced(kRealm01, "realm-id = \"realm01\"\n", "realm-id = \"realm01\"\nhost = \"pcscf.example\"\n"));
    REQUIRE(doc.set({{"ims-aka-profile", 0}}, "refuse-deprecated", "true"));
    CHECK(doc.text().find("end-protected-client-port = 6203\nrefuse-deprecated = true\n") != std::string::npos);
    REQUIRE(doc.set({}, "ktls", "\"off\""));
    CHECK(doc.text().find("as told by operations\nktls = \"off\"\n") != std::string::npos);
}

TEST_CASE("A key of another table that looks like the commented default is left alone") {
    auto doc = document("[a]\nx = 1\n# [limits]\n# y = 5\n\n[b]\nz = 1\n");
    REQUIRE(doc.set({{"a"}}, "y", "6"));
    CHECK(doc.text() == "[a]\nx = 1\ny = 6\n# [limits]\n# y = 5\n\n[b]\nz = 1\n");
}

TEST_CASE("A key is taken out; with a comment behind it the line becomes a comment") {
    auto doc = document();
    REQUIRE(doc.unset({}, "log-level"));
    CHECK(doc.text().find("# log-level = \"info\"      # as told by operations\n") != std::string::npos);
    REQUIRE(doc.unset({{"sip-interface", 0}, {"sip-ports", 1}}, "port"));
    CHECK(doc.text() == replaced(replaced(kRealm01, "log-level", "# log-level"), "port = 5061\n", ""));
    REQUIRE(doc.unset({}, "never-set"));
    REQUIRE(doc.unset({{"ims-aka-profile", 0}}, "protected-server-port"));
    CHECK(doc.text().find("# protected-server-port = [6100,       # first\n#                          6101]") !=
          std::string::npos);
}

TEST_CASE("A section that stands there as a comment becomes a real one, with its commented defaults") {
    auto doc = document("[core]\nx = 1\n\n# [limits]\n# registrations = 100000\n\n# [timers]\n# old-set = 128\n");
    const auto step = doc.add({}, "limits", false);
    REQUIRE(step.has_value());
    REQUIRE(doc.set({*step}, "registrations", "5"));
    CHECK(doc.text() ==
          "[core]\nx = 1\n\n[limits]\n# registrations = 100000\nregistrations = 5\n\n# [timers]\n# old-set = 128\n");
}

TEST_CASE(
    "A new list element goes behind its sisters, one below another at that one's end, the first of its kind at the end of the file") {
    auto doc = document();
    const auto profile = doc.add({}, "ims-aka-profile", true);
    REQUIRE(profile.has_value());
    CHECK(*profile == Step{"ims-aka-profile", 1});
    CHECK(doc.text() == replaced(kRealm01, "end-protected-client-port = 6203\n",
                                 "end-protected-client-port = 6203\n\n[[ims-aka-profile]]\n"));
    const auto port = doc.add(kInterface, "sip-ports", true);
    REQUIRE(port.has_value());
    CHECK(port->index == 2);
    CHECK(doc.text().ends_with("# end of realm01\n\n[[sip-interface.sip-ports]]\n"));
    auto empty = document("");
    REQUIRE(empty.add({}, "sip-interface", true).has_value());
    REQUIRE(empty.add({{"sip-interface", 0}}, "sip-ports", true).has_value());
    REQUIRE(empty.set({{"sip-interface", 0}}, "realm-id", "\"a\""));
    CHECK(empty.text() == "[[sip-interface]]\nrealm-id = \"a\"\n\n[[sip-interface.sip-ports]]\n");
}

TEST_CASE("An element goes with everything below it, and the others stay byte for byte") {
    auto doc = document();
    REQUIRE(doc.remove({{"sip-interface", 0}, {"sip-ports", 0}}));
    CHECK(
        doc.text() ==
        replaced(
            kRealm01,
            "[[sip-interface.sip-ports]]\naddress = \"172.172.30.31\"\nims-aka-profile = \"volte\"            # protected ports\n\n",
            ""));
    REQUIRE(doc.remove(kInterface));
    CHECK(doc.text() == kRealm01.substr(0, kRealm01.find("[[sip-interface]]")));
    CHECK_FALSE(doc.has(kInterface));
}

TEST_CASE(
    "Inline tables: values are replaced and added; what would need more than that is refused and changes nothing") {
    const std::string text = "ports = [{ a = 1 }, {}]\n";
    auto doc = document(text);
    REQUIRE(doc.set({{"ports", 0}}, "a", "2"));
    REQUIRE(doc.set({{"ports", 0}}, "b", "3"));
    REQUIRE(doc.set({{"ports", 1}}, "b", "4"));
    CHECK(doc.text() == "ports = [{ a = 2, b = 3 }, {b = 4}]\n");
    const auto before = doc.text();
    CHECK_FALSE(doc.unset({{"ports", 0}}, "a"));
    CHECK_FALSE(doc.add({}, "ports", true));
    CHECK_FALSE(doc.remove({{"ports", 0}}));
    CHECK(doc.text() == before);
}

TEST_CASE("A value that is no TOML, or tries to be more than one value, changes nothing") {
    auto doc = document();
    CHECK_FALSE(doc.set({{"core"}}, "listen", "\"a"));
    CHECK_FALSE(doc.set({{"core"}}, "listen", "1\nother = 2"));
    CHECK(doc.text() == kRealm01);
    CHECK(quoted("a\"b\\c\n") == "\"a\\\"b\\\\c\\u000a\"");
    REQUIRE(doc.set({{"core"}}, "visited-network-id", quoted("a\"b\\c\n")));
    CHECK(doc.value({{"core"}}, "visited-network-id") == "a\"b\\c\n");
}

TEST_CASE("A text that is no TOML is refused with its line") {
    const auto bad = Document::parse("a = \n", "t.toml");
    REQUIRE_FALSE(bad.has_value());
    CHECK(bad.error().text.starts_with("t.toml:1:"));
}
