// The shell of gmctl configure: elements, parameters, done; and that the file stays valid whatever is typed.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <random>

#include "daemon/config/config.h"
#include "gmctl/configure/difference.h"
#include "tests/unit/gmctl/configure/support.h"

using namespace gmgate;
using namespace gmgate::daemon::configure;

namespace {

const Element* find(const std::vector<Element>& elements, std::string_view name) {
    const auto at = std::ranges::find(elements, name, &Element::name);
    return at == elements.end() ? nullptr : &*at;
}

void each(const std::vector<Element>& elements, const std::function<void(const Element&)>& visit) {
    for (const auto& element : elements) {
        visit(element);
        each(element.children, visit);
    }
}

}  // namespace

TEST_CASE("The schema is what the daemon's parser knows: keys, words and ranges") {
    const auto schema = ask_parser(sample_text());
    const auto* interface = find(schema.elements, "sip-interface");
    REQUIRE(interface);
    CHECK(interface->parameter("sec-agree-pref")->words ==
          std::vector<std::string>{"ipsec3gpp", "tls", "ipsec3gpp-tls", "tls-ipsec3gpp"});
    CHECK(interface->parameter("sec-agree-feature")->kind == Kind::boolean);
    CHECK(interface->parameter("aka-over-tls")->words == std::vector<std::string>{"allow", "reject-akav1"});
    CHECK(interface->parameter("no-security-client")->kind == Kind::word);
    CHECK(interface->parameter("confidentiality")->fallback == "\"preferred\"");
    CHECK(interface->parameter("emergency-numbers")->kind == Kind::texts);
    const auto* port = find(interface->children, "sip-ports");
    REQUIRE(port);
    CHECK(port->title == "[[sip-interface.sip-ports]]");
    CHECK(port->parameter("transport-protocol")->words == std::vector<std::string>{"UDP", "TCP", "TLS"});
    CHECK(port->parameter("port")->takes == "a whole number from 1 to 65535");
    const auto* profile = find(schema.elements, "ims-aka-profile");
    REQUIRE(profile);
    CHECK(profile->parameter("protected-server-port")->kind == Kind::numbers);
    CHECK(profile->parameter("auth-alg-list")->words ==
          std::vector<std::string>{"hmac-sha-1-96", "aes-gmac", "hmac-md5-96", "null"});
    CHECK(find(schema.elements, "limits")->parameter("registrations")->fallback == "100000");
    CHECK_FALSE(find(schema.elements, "limits")->is_list);
    CHECK(find(schema.elements, kTopLevel)->parameter("log-level")->kind == Kind::word);
}

// One place per setting: config.cpp reads it, packaging/gmgate.toml explains it, and the shell learns it from both.
TEST_CASE("Every parameter of the parser has its explanation in packaging/gmgate.toml") {
    const auto schema = ask_parser(sample_text());
    std::size_t count = 0;
    each(schema.elements, [&](const Element& element) {
        for (const auto& parameter : element.parameters) {
            ++count;
            const bool is_shown = sample_text().find(parameter.name + " =") != std::string_view::npos;
            CHECK_MESSAGE(is_shown, element.title, " ", parameter.name,
                          " is read by config.cpp but stands nowhere in packaging/gmgate.toml");
        }
    });
    CHECK(count >= 60);
}

TEST_CASE(
    "SEED-31 SEED-32 SEED-37: sec-agree-feature and sec-agree-pref of a selected sip-interface, saved by done; the rest of the file is untouched") {
    Shell shell;
    auto printed = shell.type({"configure terminal", "session-router", "sip-interface", "select"});
    CHECK(printed == "<RealmID>:\n1: realm01 172.172.30.31:5060 172.172.30.31:5061\n\n");
    CHECK(shell.session->prompt() == "selection: ");
    CHECK(shell.type({"1", "sec-agree-feature enabled", "sec-agree-pref ipsec3gpp-tls"}).empty());
    CHECK(shell.session->prompt() == "gmgate(sip-interface)# ");
    CHECK_MESSAGE(shell.file == kRealm01, "nothing is written before done");
    printed = shell.type({"done"});
    CHECK(printed.find("sec-agree-pref                  ipsec3gpp-tls") != std::string::npos);
    CHECK(printed.find("saved to gmgate.toml") != std::string::npos);
    CHECK(shell.file ==
          replaced(kRealm01, "# the default\n",
                   "# the default\nsec-agree-feature = \"enabled\"\nsec-agree-pref = \"ipsec3gpp-tls\"\n"));
    const auto config = daemon::parse_config(shell.file, "gmgate.toml");
    REQUIRE(config.has_value());
    CHECK(config->sip_interfaces.front().sec_agree_feature);
    CHECK(config->sip_interfaces.front().sec_agree_pref == daemon::SecAgreePref::ipsec3gpp_tls);
}

TEST_CASE("SEED-33 SEED-34 SEED-35 SEED-36: each of the four preferences can be configured") {
    for (const auto* pref : {"ipsec3gpp", "tls", "ipsec3gpp-tls", "tls-ipsec3gpp"}) {
        // A TLS port and a preference without tls contradict each other, so that port goes with it.
        const bool keeps_tls = std::string_view(pref).contains("tls");
        Shell shell;
        shell.type({"configure terminal", "session-router", "sip-interface", "select realm01",
                    "sec-agree-feature enabled", fmt::format("sec-agree-pref {}", pref)});
        if (!keeps_tls) shell.type({"sip-ports", "no", "2", "exit"});
        const auto printed = shell.type({"done"});
        const auto config = daemon::parse_config(shell.file, "gmgate.toml");
        REQUIRE(config.has_value());
        CHECK_MESSAGE(to_string(config->sip_interfaces.front().sec_agree_pref) == pref, printed);
        CHECK(config->sip_interfaces.front().sec_agree_feature);
    }
}

TEST_CASE("A word that a parameter does not know is refused at once, with the words it knows") {
    Shell shell;
    shell.type({"conf t", "session-router", "sip-interface", "select 1"});
    CHECK(shell.type({"sec-agree-pref ipsec"}) ==
          "% sec-agree-pref: \"ipsec\" is not one of \"ipsec3gpp\", \"tls\", \"ipsec3gpp-tls\", \"tls-ipsec3gpp\"\n");
    CHECK(shell.type({"sec-agree-feature on"}) == "% sec-agree-feature takes enabled or disabled (or true, false)\n");
    CHECK(shell.type({"nonsense 1"}) == "% \"nonsense\" is not known here; ? tells what is\n");
    CHECK(shell.type({"sec-agree"}) == "% \"sec-agree\" can be sec-agree-feature, sec-agree-pref\n");
    CHECK(shell.type({"host \"a"}) == "% a quote is not closed\n");
    CHECK(shell.type({"done"}) == "% nothing has been changed\n");
    CHECK(shell.file == kRealm01);
}

TEST_CASE("done refuses what would make the file invalid, says why, and lets it be mended") {
    Shell shell;
    shell.type({"configure terminal", "session-router", "sip-interface", "select 1", "sec-agree-feature enabled",
                "sec-agree-pref ipsec3gpp"});
    const auto printed = shell.type({"done"});
    CHECK(printed.find("has a TLS port but its sec-agree-pref allows no tls") != std::string::npos);
    CHECK(printed.ends_with("% not saved\n"));
    CHECK(shell.file == kRealm01);
    CHECK(shell.type({"sec-agree-pref tls-ipsec3gpp", "done"}).find("saved") != std::string::npos);
    CHECK(shell.file.find("sec-agree-pref = \"tls-ipsec3gpp\"") != std::string::npos);
}

TEST_CASE("exit asks when there are changes: n gives them up, y saves them") {
    Shell shell;
    shell.type({"configure terminal", "session-router", "core", "next-hop 10.2.0.9:5060", "exit"});
    CHECK(shell.session->prompt() == "Save Changes [y/n]?: ");
    shell.type({"n"});
    CHECK(shell.session->prompt() == "gmgate(session-router)# ");
    CHECK(shell.file == kRealm01);
    shell.type({"core", "next-hop 10.2.0.9:5060", "exit", "y"});
    CHECK(shell.session->prompt() == "gmgate(session-router)# ");
    CHECK(shell.file == replaced(kRealm01, "10.2.0.2:5060", "10.2.0.9:5060"));
    shell.type({"exit", "exit"});
    CHECK(shell.session->prompt() == "gmgate# ");
    CHECK_FALSE(shell.session->is_over());
    shell.type({"exit"});
    CHECK(shell.session->is_over());
}

TEST_CASE("A new element is made by its first parameter and saved with its parts by one done") {
    Shell shell;
    shell.type({"configure terminal", "session-router", "sip-interface", "realm-id realm02", "sip-ports",
                "address fd01::31", "ims-aka-profile volte", "done", "exit"});
    CHECK(shell.file == kRealm01);
    const auto printed = shell.type({"done"});
    CHECK_MESSAGE(printed.find("saved") != std::string::npos, printed);
    CHECK(
        shell.file ==
        kRealm01 +
            "\n[[sip-interface]]\nrealm-id = \"realm02\"\n\n[[sip-interface.sip-ports]]\naddress = \"fd01::31\"\nims-aka-profile = \"volte\"\n");
    shell.type({"exit", "sip-interface"});
    CHECK(shell.type({"select"}) ==
          "<RealmID>:\n1: realm01 172.172.30.31:5060 172.172.30.31:5061\n2: realm02 [fd01::31]:5060\n\n");
    shell.type({"7"});
    CHECK(shell.session->prompt() == "gmgate(sip-interface)# ");
}

TEST_CASE("no removes an element unless another needs it, and takes a parameter back to its default") {
    Shell shell;
    shell.type({"configure terminal", "security", "ims-aka-profile", "no"});
    CHECK(shell.session->prompt() == "selection: ");
    const auto refused = shell.type({"1"});
    CHECK(refused.find("names ims-aka-profile \"volte\", which is not defined") != std::string::npos);
    CHECK(shell.file == kRealm01);
    shell.type({"name spare", "protected-server-port 7100 7101", "start-protected-client-port 7200",
                "end-protected-client-port 7203", "done"});
    CHECK(shell.file.find("[[ims-aka-profile]]\nname = \"spare\"\nprotected-server-port = [7100, 7101]\n") !=
          std::string::npos);
    shell.type({"no", "spare"});
    CHECK(shell.file.find("spare") == std::string::npos);
    CHECK(shell.file == kRealm01);
    shell.type({"exit", "exit", "system", "system-config", "no log-level", "done"});
    CHECK(shell.file == replaced(kRealm01, "log-level", "# log-level"));
}

TEST_CASE("A range is moved in any order; only done looks at both ends") {
    Shell shell;
    CHECK(shell
              .type({"configure terminal", "security", "ims-aka-profile", "select volte",
                     "end-protected-client-port 7203", "start-protected-client-port 7200"})
              .empty());
    CHECK(shell.type({"done"}).find("saved") != std::string::npos);
    CHECK(shell.type({"end-protected-client-port 70000"}) ==
          "% end-protected-client-port: must be a whole number from 1 to 65535\n");
    shell.type({"end-protected-client-port 7201"});
    CHECK(shell.type({"done"}).find("at least three are needed") != std::string::npos);
}

TEST_CASE("A configuration is made from nothing, element by element") {
    Shell shell("");
    shell.type({"configure terminal", "session-router", "core", "listen 10.2.0.1:5060", "next-hop 10.2.0.2:5060",
                "visited-network-id visited.example"});
    CHECK(shell.type({"done"}).find("not in the file yet, which also needs:\n% no [[sip-interface]]") !=
          std::string::npos);
    CHECK(shell.file.empty());
    shell.type({"exit",
                "exit",
                "security",
                "ims-aka-profile",
                "name volte",
                "protected-server-port 6100,6101",
                "start-protected-client-port 6200",
                "end-protected-client-port 6203",
                "done",
                "exit",
                "exit",
                "session-router",
                "sip-interface",
                "realm-id access",
                "sec-agree-feature enabled",
                "sec-agree-pref ipsec3gpp",
                "sip-ports",
                "address 10.1.0.1",
                "transport-protocol udp tcp",
                "ims-aka-profile volte",
                "done",
                "exit"});
    const auto printed = shell.type({"done"});
    CHECK_MESSAGE(printed.find("saved") != std::string::npos, printed);
    CHECK_MESSAGE(daemon::parse_config(shell.file, "gmgate.toml").has_value(), shell.file);
    CHECK(shell.file.find("transport-protocol = [\"UDP\", \"TCP\"]") != std::string::npos);
}

TEST_CASE("What cannot be written is said, and done can be typed again") {
    Shell shell;
    shell.is_disk_full = true;
    shell.type({"configure terminal", "session-router", "core", "next-hop 10.2.0.9:5060"});
    CHECK(shell.type({"done"}) == "% not saved: the disk is full\n");
    shell.is_disk_full = false;
    CHECK(shell.type({"done"}).find("saved") != std::string::npos);
}

TEST_CASE("Completion knows commands, words and the names of other elements; help explains a parameter") {
    Shell shell;
    const auto& session = *shell.session;
    using Words = std::vector<std::string>;
    CHECK(session.complete("conf") == Words{"configure"});
    CHECK(session.complete("configure ") == Words{"terminal"});
    shell.type({"configure terminal"});
    CHECK(session.complete("s") == Words{"session-router", "security", "system", "show"});
    shell.type({"session-router", "sip-interface", "select 1"});
    CHECK(session.complete("sec-agree-p") == Words{"sec-agree-pref"});
    CHECK(session.complete("sec-agree-pref ") == Words{"ipsec3gpp", "tls", "ipsec3gpp-tls", "tls-ipsec3gpp"});
    CHECK(session.complete("sec-agree-pref t") == Words{"tls", "tls-ipsec3gpp"});
    CHECK(session.complete("no ignore") == Words{"ignore-q"});
    const auto help = session.help("sec-agree-pref ");
    CHECK(help.find("one of: ipsec3gpp, tls, ipsec3gpp-tls, tls-ipsec3gpp") != std::string::npos);
    CHECK(shell.type({"no-security-client"}).find("421") != std::string::npos);
    shell.type({"sip-ports", "select 1"});
    CHECK(session.complete("ims-aka-profile ") == Words{"volte"});
}

TEST_CASE("Whatever is typed, the file is valid and only done, no and y write it") {
    std::mt19937 random(7);
    // What makes sense where: the words that completion offers, each with a value out of these.
    const std::vector<std::string> values = {"",
                                             "enabled",
                                             "disabled",
                                             "true",
                                             "tls",
                                             "ipsec3gpp-tls",
                                             "x",
                                             "\"a ] # b\"",
                                             "\"[x]\\\"",
                                             "volte",
                                             "y",
                                             "10.1.1.1",
                                             "fd01::1",
                                             "5060",
                                             "5071",
                                             "TLS",
                                             "UDP,TCP",
                                             "access-tls",
                                             "7100 7101",
                                             "7200",
                                             "7203",
                                             "5",
                                             "200",
                                             "debug",
                                             "[fd02::1]:5060",
                                             "[fd02::2]:5060",
                                             "terminal",
                                             "1"};
    std::size_t written = 0;
    for (int round = 0; round < 40; ++round) {
        Shell shell;
        for (int i = 0; i < 150 && !shell.session->is_over(); ++i) {
            const auto before = shell.file;
            const auto prompt = shell.session->prompt();
            const auto offered = shell.session->complete("");
            std::string line = prompt.starts_with("Save") ? "y" : prompt.starts_with("What") ? "n" : "1";
            if (!offered.empty()) {
                line = random() % 4 == 0 ? "done" : offered[random() % offered.size()];
                const auto words = shell.session->complete(line + " ");
                line += " " + (!words.empty() && random() % 2 ? words[random() % words.size()]
                                                              : values[random() % values.size()]);
                if (line.starts_with("exit") && random() % 2) line = "done";
            }
            shell.type({line});
            if (shell.file == before) continue;
            ++written;
            const auto config = daemon::parse_config(shell.file, "gmgate.toml");
            REQUIRE_MESSAGE(config.has_value(), line, ":\n", shell.file);
            REQUIRE(shell.file.starts_with("# the edge in rack 7\n"));
        }
    }
    CHECK(written > 20);
}

TEST_CASE("+VALUE adds to a list, its defaults too, -VALUE takes out of it, and what is not there is said") {
    Shell shell;
    shell.type({"configure terminal", "security", "ims-aka-profile", "select volte"});
    CHECK(shell.type({"protected-server-port +6102 -6100", "done"}).find("6101 6102") != std::string::npos);
    CHECK(shell.type({"auth-alg-list -hmac-md5-96 -null", "done"}).find("hmac-sha-1-96 aes-gmac") != std::string::npos);
    CHECK(shell.file.find("auth-alg-list = [\"hmac-sha-1-96\", \"aes-gmac\"]") != std::string::npos);
    CHECK(shell.type({"auth-alg-list +hmac-sha-1-96"}).empty());  // it is there
    CHECK(shell.type({"auth-alg-list -hmac-md5-96"}).starts_with("% auth-alg-list has no hmac-md5-96"));
    CHECK(shell.type({"auth-alg-list -hmac-sha-1-96 -aes-gmac"}).starts_with("% auth-alg-list would be empty"));
    CHECK(shell.type({"auth-alg-list +rot13"}).starts_with("% auth-alg-list: "));
    CHECK(shell.type({"start-protected-client-port +6300"}).starts_with("% "));  // no list
}

TEST_CASE("save-config, activate-config, backup-config and restore-config on the outermost level") {
    Shell shell;
    std::map<std::string, std::string> kept;
    int activated = 0;
    CHECK(shell.type({"activate-config"}).starts_with("% no gateway is asked from here"));
    shell.session->set_actions({[&]() -> Result<std::string> {
                                    if (++activated == 2) return failure(Reaction::broken, "nobody answers");
                                    return std::string("1 applied\n");
                                },
                                [&](const std::string& name, const std::string& text) -> Result<void> {
                                    kept[name] = text;
                                    return {};
                                },
                                [&](const std::string& name) -> Result<std::string> {
                                    if (!kept.contains(name)) return failure(Reaction::reject, "there is none");
                                    return kept[name];
                                }});
    CHECK(shell.type({"save-config"}).find("is saved") != std::string::npos);
    CHECK(shell.type({"activate-config"}) == "1 applied\n");
    CHECK(shell.type({"activate-config"}) == "% not activated: nobody answers\n");
    CHECK(shell.type({"backup-config before"}).find("is kept as before") != std::string::npos);
    const auto before = shell.file;
    shell.type({"configure terminal", "system", "system-config", "log-level debug", "done", "exit", "exit", "exit"});
    CHECK(shell.file != before);
    CHECK(shell.type({"restore-config before"}).find("restored") != std::string::npos);
    CHECK(shell.file == before);
    CHECK(shell.type({"restore-config never"}).starts_with("% there is none"));
    kept["bad"] = "log-level = \"loud\"\n";
    CHECK(shell.type({"restore-config bad"}).find("no good configuration") != std::string::npos);
    CHECK(shell.file == before);
    for (const auto* wrong :
         {"backup-config", "backup-config ../etc/passwd", "restore-config a b", "backup-config \"\""})
        CHECK(shell.type({wrong}).starts_with("% it is: "));
}

TEST_CASE("The difference of two texts is unified, with three lines around each change") {
    CHECK(difference("a\nb\n", "a\nb\n", "f").empty());
    CHECK(difference("1\n2\n3\n4\n5\n6\n7\n8\n9\n", "1\n2\n3\n4\nfive\n6\n7\n8\n9\nten\n", "f") ==
          "--- f\n+++ f\n@@ -2,8 +2,9 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n 9\n+ten\n");
    CHECK(difference("", "a\n", "f") == "--- f\n+++ f\n@@ -0,0 +1,1 @@\n+a\n");
    std::string far = "x\n";
    for (int i = 0; i < 20; ++i) far += "same\n";
    const auto two = difference(far + "y\n", "z\n" + far.substr(2), "f");
    CHECK(std::ranges::count(two, '@') == 8);  // two places
}
