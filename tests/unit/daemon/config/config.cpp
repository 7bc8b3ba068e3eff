// gmgate.toml: what is read, and that every mistake is told with its place and the fix.
#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "daemon/config/cluster.h"
#include "daemon/config/config.h"
#include "daemon/config/lab.h"

using namespace gmgate;
using namespace gmgate::daemon;

namespace {

const std::string kGood = R"([core]
listen = "10.2.0.1:5060"
next-hop = "10.2.0.2:5060"
visited-network-id = "visited.example"
[[ims-aka-profile]]
name = "volte"
protected-server-port = [6100, 6101]
start-protected-client-port = 6200
end-protected-client-port = 6203
[[sip-interface]]
realm-id = "access"
sec-agree-feature = "enabled"
sec-agree-pref = "ipsec3gpp"
[[sip-interface.sip-ports]]
address = "10.1.0.1"
ims-aka-profile = "volte"
)";

std::string with(std::string text, const std::string& from, const std::string& to) {
    const auto at = text.find(from);
    REQUIRE(at != std::string::npos);
    return text.replace(at, from.size(), to);
}

std::string mistake(const std::string& text) {
    const auto config = parse_config(text, "test.toml");
    REQUIRE_FALSE(config.has_value());
    return config.error().text;
}

}  // namespace

TEST_CASE("A small configuration is read, with its defaults") {
    const auto config = parse_config(kGood, "test.toml");
    REQUIRE_MESSAGE(config.has_value(), config.error().text);
    CHECK(config->core.next_hops.at(0).to_string() == "10.2.0.2:5060");
    const auto& profile = config->ims_aka_profiles.front();
    CHECK(profile.preference == std::vector<AlgorithmPair>(kDefaultPreference.begin(), kDefaultPreference.end()));
    CHECK(profile.all_ports().size() == 6);
    const auto& interface = config->sip_interfaces.front();
    CHECK(interface.sec_agree_feature);
    CHECK(interface.on_no_security_client() == NoSecurityClient::reject);
    CHECK(interface.confidentiality == Confidentiality::preferred);
    CHECK(interface.emergency_numbers == std::vector<std::string>{"112", "911"});
    CHECK_FALSE(interface.alternative_service);
    CHECK((interface.refresh_authorization.realm && interface.refresh_authorization.uri &&
           interface.refresh_authorization.algorithm));
    CHECK(config->warnings.empty());
    CHECK(config->timers.reg_await_auth == std::chrono::seconds{240});
    CHECK(config->timers.old_set == std::chrono::seconds{128});
}

TEST_CASE("nat-traversal has a block of protected ports of its own, off by default") {
    const std::string profile = "end-protected-client-port = 6203\n";
    REQUIRE(std::string(kGood).find(profile) != std::string::npos);
    CHECK_FALSE(parse_config(kGood, "test.toml")->ims_aka_profiles.front().nat.is_on);
    const auto on = [&](const std::string& lines) {
        return with(kGood, profile, profile + "nat-traversal = \"on\"\n" + lines);
    };
    const auto good = on("start-nat-protected-port = 6208\nend-nat-protected-port = 6223\n");
    const auto config = parse_config(good, "test.toml");
    REQUIRE_MESSAGE(config.has_value(), config.error().text);
    const auto& read = config->ims_aka_profiles.front();
    CHECK(read.all_ports().size() == 22);
    CHECK(read.transport_ports().size() == 6);
    CHECK(read.server_ports(xfrm::Mode::udp_enc_tun).front() == Port{6208});
    CHECK(read.client_ports(xfrm::Mode::udp_enc_tun).front() == Port{6216});
    CHECK(read.nat.block() == xfrm::PortBlock{Port{6208}, 16});
    CHECK_FALSE(read.nat.takes_private_inner);
    const auto any =
        on("start-nat-protected-port = 6208\nend-nat-protected-port = 6223\nnat-inner-addresses = \"any\"\n");
    CHECK(parse_config(any, "test.toml")->ims_aka_profiles.front().nat.takes_private_inner);
    CHECK(mistake(on("")).find("both needed") != std::string::npos);
    for (const auto* lines : {"start-nat-protected-port = 6209\nend-nat-protected-port = 6224\n",
                              "start-nat-protected-port = 6208\nend-nat-protected-port = 6219\n",
                              "start-nat-protected-port = 6208\nend-nat-protected-port = 6211\n"})
        CHECK(mistake(on(lines)).find("give 8, 16, 32 or 64") != std::string::npos);
    CHECK(mistake(on("start-nat-protected-port = 6200\nend-nat-protected-port = 6207\n"))
              .find("port 6200 is used twice in this profile") != std::string::npos);
    CHECK(mistake(on("start-nat-protected-port = 4496\nend-nat-protected-port = 4503\n")).find("4500") !=
          std::string::npos);
    CHECK(mistake(good + "[xfrm]\nsa-engine = \"libcharon\"\n").find("port masks") != std::string::npos);
}

TEST_CASE("SEED: sec-agree-feature is disabled by default") {
    const auto config = parse_config(with(kGood, "sec-agree-feature = \"enabled\"\n", ""), "test.toml");
    REQUIRE(config.has_value());
    CHECK_FALSE(config->sip_interfaces.front().sec_agree_feature);
}

TEST_CASE(
    "The commented sample in packaging/ is a configuration that parses, and so it does with every comment taken away") {
    std::ifstream file(std::string(GMGATE_TEST_DATA) + "/../../../packaging/gmgate.toml");
    REQUIRE(file);
    std::stringstream text;
    text << file.rdbuf();
    const auto config = parse_config(text.str(), "gmgate.toml");
    REQUIRE_MESSAGE(config.has_value(), config.error().text);
    // "# key = value", "#[[table]]" or "# [table]" is a setting; other comments are prose.
    const auto is_setting = [](const std::string& line) {
        const std::size_t begin = line.starts_with("# ") ? 2 : 1;
        if (!line.starts_with('#') || begin >= line.size()) return false;
        const auto end = line.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-", begin);
        return line[begin] == '[' || (end != std::string::npos && end > begin && line.compare(end, 3, " = ") == 0);
    };
    std::string bare;
    for (std::string line; std::getline(text, line);) {
        if (line.starts_with("#preference")) continue;  // stands instead of the two lists
        if (is_setting(line)) line = line.substr(line.starts_with("# ") ? 2 : 1);
        bare += line + "\n";
    }
    const auto all =
        parse_config(with(bare, "sec-agree-pref = \"ipsec3gpp\"", "sec-agree-pref = \"ipsec3gpp-tls\""), "bare.toml");
    REQUIRE_MESSAGE(all.has_value(), all.error().text);
    CHECK(all->xfrm.reqid == 21321);
    CHECK(all->tls_profiles.size() == 1);
    CHECK(all->tls_profiles.front().expiry_warning == std::chrono::days{30});
    const auto over_tls =
        parse_config(with(with(bare, "sec-agree-pref = \"ipsec3gpp\"", "sec-agree-pref = \"ipsec3gpp-tls\""),
                          "\ntransport = \"udp\"", "\ntransport = \"tls\""),
                     "bare.toml");
    REQUIRE_MESSAGE(over_tls.has_value(), over_tls.error().text);
    CHECK(over_tls->core.transport == CoreTransport::tls);
    CHECK(over_tls->core.tls_name == "icscf.ims.example");
    CHECK(all->sip_interfaces.front().sip_ports.size() == 2);
    auto core = over_tls->core;
    core.next_hops.front().tls_name = "other.example";
    core.emergency_next_hops.push_back(core.next_hops.front());
    CHECK(core.tls_names() == std::vector<std::string>{"icscf.ims.example", "other.example"});
}

TEST_CASE("Mistakes are told with line, column and the fix") {
    CHECK(mistake(with(kGood, "realm-id", "realm-name"))
              .find("test.toml:11:1: [[sip-interface]]: unknown key \"realm-name\"; known here:") != std::string::npos);
    CHECK(mistake(with(kGood, "name = \"volte\"\n", "name = \"volte\"\nname = \"x\"\n"))
              .starts_with("test.toml:7:"));  // duplicate
    CHECK(mistake(with(kGood, "sec-agree-feature", "sec-agree-featrue"))
              .find("unknown key \"sec-agree-featrue\"; did you mean \"sec-agree-feature\"? known here:") !=
          std::string::npos);
    CHECK(mistake(with(kGood, "\"ipsec3gpp\"", "\"ipsec-3gpp\"")).find("\"; did you mean \"ipsec3gpp\"?") !=
          std::string::npos);
    CHECK(mistake(with(kGood, "6203", "6201")).find("at least three are needed") != std::string::npos);
    CHECK(mistake(with(kGood, "[6100, 6101]", "[6100]")).find("give two ports") != std::string::npos);
    CHECK(mistake(with(kGood, "[6100, 6101]", "[5060, 6101]")).find("never a protected one") != std::string::npos);
    CHECK(mistake(with(kGood, "[6100, 6101]", "[6200, 6101]")).find("used twice") != std::string::npos);
    CHECK(mistake(with(kGood, "ims-aka-profile = \"volte\"\n", "ims-aka-profile = \"vol\"\n")).find("is not defined") !=
          std::string::npos);
    CHECK(mistake(with(kGood, "\"10.1.0.1\"", "\"10.1.0\"")).find("is no IPv4 or IPv6 address") != std::string::npos);
    CHECK(mistake(with(kGood, "\"10.2.0.1:5060\"", "\"core.example:5060\"")).find("names are not looked up") !=
          std::string::npos);
    CHECK(mistake(with(kGood, "\"ipsec3gpp\"", "\"ipsec\"")).find("is not one of \"ipsec3gpp\", \"tls\"") !=
          std::string::npos);
    CHECK(mistake(with(kGood, "\"ipsec3gpp\"", "\"tls-ipsec3gpp\""))
              .find("has no sip-port with transport-protocol = \"TLS\"") != std::string::npos);
    CHECK(mistake(with(kGood, "address = \"10.1.0.1\"", "address = \"10.1.0.1\"\nport = 6100"))
              .find("give one of them another port") != std::string::npos);
    const auto tls_core = with(kGood, "[core]\n", "[core]\ntransport = \"tls\"\n");
    CHECK(mistake(tls_core).find("needs the SIP domain or host that the core's certificate must be for") !=
          std::string::npos);
    CHECK(mistake(tls_core).find("needs the [[tls-profile]] with our own certificate") != std::string::npos);
    CHECK(mistake(with(tls_core, "[core]\n", "[core]\ntls-name = \"c.example\"\ntls-profile = \"none\"\n"))
              .find("[core] names tls-profile \"none\", which is not defined") != std::string::npos);
    CHECK(mistake(with(kGood, "[[ims-aka-profile]]",
                       "[[core.next-hops]]\nhost = \"10.2.0.3\"\ntls-name = \"other.example\"\n[[ims-aka-profile]]"))
              .find("tls-name of a next hop needs [core] transport = \"tls\"") != std::string::npos);
    CHECK(mistake(with(kGood, "[core]", "[coar]")).find("the section [core] is missing") != std::string::npos);
    CHECK(mistake(with(kGood, "[[ims-aka-profile]]", "[[ims-aka-profile]]\npreference = [\"null/null\"]"))
              .find("is no valid") != std::string::npos);
    CHECK(mistake("[core\n").starts_with("test.toml:1:"));
}

TEST_CASE("All mistakes are told at once") {
    const auto text = mistake(with(with(kGood, "realm-id", "realm-name"), "6203", "6201"));
    CHECK(std::count(text.begin(), text.end(), '\n') >= 1);
}

TEST_CASE("G-20: refuse-deprecated takes md5 and 3DES out of the preference") {
    const auto config =
        parse_config(with(kGood, "name = \"volte\"\n", "name = \"volte\"\nrefuse-deprecated = true\n"), "test.toml");
    REQUIRE(config.has_value());
    for (const auto pair : config->ims_aka_profiles.front().preference) CHECK_FALSE(is_deprecated(pair));
}

TEST_CASE("B-62: a member of one algorithm list that nothing in the other one pairs with is said") {
    const auto warnings = [](const std::string& lines) {
        const auto config = parse_config(with(kGood, "name = \"volte\"\n", "name = \"volte\"\n" + lines), "test.toml");
        REQUIRE_MESSAGE(config.has_value(), config.error().text);
        return config->warnings;
    };
    const auto lonely = warnings("encr-alg-list = [\"aes-cbc\", \"aes-gcm\"]\nauth-alg-list = [\"hmac-sha-1-96\"]\n");
    REQUIRE(lonely.size() == 1);
    CHECK(lonely.front() ==
          "test.toml:7:17: [[ims-aka-profile]]: encr-alg-list: \"aes-gcm\" is never used: it pairs with null, which "
          "auth-alg-list does not allow; add that, or take \"aes-gcm\" out");
    const auto mac = warnings("encr-alg-list = [\"aes-cbc\"]\nauth-alg-list = [\"hmac-sha-1-96\", \"aes-gmac\"]\n");
    REQUIRE(mac.size() == 1);
    CHECK(mac.front().find("auth-alg-list: \"aes-gmac\" is never used: it pairs with null") != std::string::npos);
    CHECK(warnings("auth-alg-list = [\"hmac-sha-1-96\"]\n")
              .empty());  // the default of the other list is not of our writing
    CHECK(warnings("encr-alg-list = [\"aes-gcm\", \"aes-cbc\"]\n").empty());
}

TEST_CASE("A-24, SEED-31: an interface whose clear ports serve nobody is said; TLS ports alone are served without it") {
    const auto off = parse_config(with(kGood, "sec-agree-feature = \"enabled\"\n", ""), "test.toml");
    REQUIRE(off.has_value());
    REQUIRE(off->warnings.size() == 1);
    CHECK(off->warnings.front().find("neither sec-agree-feature nor ims-aka-feature is enabled") != std::string::npos);
    const auto aka =
        parse_config(with(kGood, "sec-agree-feature = \"enabled\"", "ims-aka-feature = true"), "test.toml");
    REQUIRE(aka.has_value());
    CHECK(aka->warnings.empty());
}

TEST_CASE("A-24: two interfaces at one address: each has a profile of its own, or it is a mistake") {
    const std::string second =
        "[[sip-interface]]\nrealm-id = \"second\"\nsec-agree-feature = true\n"
        "[[sip-interface.sip-ports]]\naddress = \"10.1.0.1\"\nport = 5070\nims-aka-profile = ";
    CHECK(mistake(kGood + second + "\"volte\"\n")
              .find("\"access\" and \"second\" share ims-aka-profile \"volte\" at 10.1.0.1") != std::string::npos);
    const std::string other =
        "[[ims-aka-profile]]\nname = \"other\"\nprotected-server-port = [6110, 6111]\n"
        "start-protected-client-port = 6210\nend-protected-client-port = 6213\n";
    const auto apart = parse_config(kGood + other + second + "\"other\"\n", "test.toml");
    REQUIRE_MESSAGE(apart.has_value(), apart.error().text);
    CHECK(mistake(kGood +
                  "[[sip-interface.sip-ports]]\naddress = \"10.1.0.1\"\nport = 5070\nims-aka-profile = "
                  "\"other\"\n" +
                  other)
              .find("one address of an interface has one profile") != std::string::npos);
    CHECK(parse_config(kGood + "[[sip-interface.sip-ports]]\naddress = \"10.1.0.1\"\nport = 5070\nims-aka-profile = "
                               "\"volte\"\n",
                       "test.toml")
              .has_value());
}

TEST_CASE("G-8: refresh-authorization names fields that may not change; username always is one of them") {
    const auto setting = [](const std::string& value) {
        return with(kGood, "sec-agree-pref", "refresh-authorization = " + value + "\nsec-agree-pref");
    };
    const auto config = parse_config(setting("[\"username\", \"uri\"]"), "test.toml");
    REQUIRE_MESSAGE(config.has_value(), config.error().text);
    const auto& compared = config->sip_interfaces.front().refresh_authorization;
    CHECK(compared.uri);
    CHECK_FALSE(compared.realm);
    CHECK_FALSE(compared.algorithm);
    CHECK(mistake(setting("[\"username\", \"nonce\"]")).find("is none of username, realm, uri, algorithm") !=
          std::string::npos);
    CHECK(mistake(setting("[\"realm\"]")).find("username cannot be left out") != std::string::npos);
}

TEST_CASE("An address that does not exist on this machine is told before anything starts") {
    const auto config = parse_config(kGood, "test.toml");
    const auto problems = check_addresses(*config);
    REQUIRE_FALSE(problems.empty());
    CHECK(problems.front().find("does not exist on this machine") != std::string::npos);
}

TEST_CASE("[cluster]: what is needed, what does not go together, and where the store is") {
    const std::string good = kGood +
                             "[cluster]\nname = \"home\"\nnode-id = 2\nurl = \"redis://u:p@10.3.0.1:6379\"\n"
                             "secret-file = \"/etc/gmgate/cluster.secret\"\n";
    const auto config = parse_config(good, "test.toml");
    REQUIRE_MESSAGE(config.has_value(), config.error().text);
    CHECK(check_addresses(*config).empty());  // they come and go
    CHECK(mistake(with(good, "node-id = 2", "node-id = 9")).find("from 1 to 8") != std::string::npos);
    CHECK(mistake(with(good, "name = \"home\"\n", "")).find("name: is needed") != std::string::npos);
    CHECK(mistake(with(good, "redis://u:p@", "rediss://")).find("tls-name: is needed") != std::string::npos);
    CHECK(parse_config(with(good, "redis://u:p@", "rediss://") + "tls-name = \"redis.example\"\n", "test.toml"));
    CHECK(mistake(good + "tls-name = \"redis.example\"\n").find("are for rediss://") != std::string::npos);
    CHECK(parse_config(with(good, "url = \"redis://u:p@10.3.0.1:6379\"",
                            "url = [\"redis://10.3.0.1:6379\", \"redis://10.3.0.2:6379\"]"),
                       "test.toml"));
    CHECK(mistake(with(good, "\"redis://u:p@10.3.0.1:6379\"", "[\"unix:/a\", \"unix\"]")).find("a list of them") !=
          std::string::npos);
    CHECK(mistake(with(good, "10.3.0.1:6379", "redis.example:6379")).find("an address and no name") !=
          std::string::npos);
    CHECK(mistake(with(good, "\"/etc", "\"etc")).find("a path from the root") != std::string::npos);
    CHECK(mistake(good + "[xfrm]\nsa-engine = \"in-process\"\n").find("seals keys") != std::string::npos);
    CHECK(mistake(good + "[store]\nmode = \"memory\"\n").find("must be \"file\"") != std::string::npos);
    CHECK(mistake(good + "[xfrm]\nspi-start = 0x10000000\nspi-end = 0x10010000\n").find("65536 SPIs") !=
          std::string::npos);

    CHECK(RedisAddress::parse("unix:/run/redis.sock")->path == "/run/redis.sock");
    CHECK(RedisAddress::parse("redis://[fd03::1]:6379")->endpoint.to_string() == "[fd03::1]:6379");
    const auto login = RedisAddress::parse("redis://user:pa@ss@10.3.0.1:6379");
    REQUIRE(login);
    CHECK(login->user == "user");
    CHECK(login->password == "pa@ss");
    CHECK(login->to_string() == "10.3.0.1:6379");
    for (const char* wrong :
         {"", "unix:run", "redis://", "redis://10.3.0.1", "redis://u@10.3.0.1:1", "http://10.3.0.1:1"})
        CHECK(!RedisAddress::parse(wrong));

    // No SPI of one node is another one's.
    ClusterConfig one, eight;
    one.node_id = 1;
    eight.node_id = 8;
    const XfrmConfig xfrm;
    CHECK(one.spi_range(xfrm).first == xfrm.spi_start);
    CHECK(one.spi_range(xfrm).second < eight.spi_range(xfrm).first);
    CHECK(eight.spi_range(xfrm).second <= xfrm.spi_end);
}

TEST_CASE("[lab] export-keys is off unless the file says so, is warned of, and names a file that can be named") {
    CHECK_FALSE(lab_of(parse_config(kGood, "test.toml")->settings).export_keys);
    const auto on = parse_config(kGood + "[lab]\nexport-keys = true\n", "test.toml");
    REQUIRE(on.has_value());
    CHECK(lab_of(on->settings).export_keys);
    CHECK(lab_of(on->settings).tls_key_log == "/run/gmgate/tls-keys.log");
    REQUIRE(on->warnings.size() == 1);
    CHECK(on->warnings.front().find("export-keys: keys of phones leave this gateway") != std::string::npos);
    const auto words =
        parse_config(kGood + "[lab]\nexport-keys = \"enabled\"\ntls-key-log = '/root/tls keys'\n", "test.toml");
    REQUIRE(words.has_value());
    CHECK(lab_of(words->settings).export_keys);
    CHECK(lab_of(words->settings).tls_key_log == "/root/tls keys");
    CHECK_FALSE(lab_of(parse_config(kGood + "[lab]\nexport-keys = \"disabled\"\n", "test.toml")->settings).export_keys);
    CHECK(mistake(kGood + "[lab]\nexport-keys = \"yes\"\n").find("export-keys") != std::string::npos);
    for (const auto* path : {"\"keys\"", "\"/a\\\\b\"", "\"/a'b\""})
        CHECK(mistake(kGood + "[lab]\ntls-key-log = " + path + "\n").find("must be the path") != std::string::npos);
}
