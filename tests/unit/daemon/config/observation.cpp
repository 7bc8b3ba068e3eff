// Settings of what the gateway keeps and hands out for its operator: defaults, values however TOML writes them,
// mistakes.
#include <doctest/doctest.h>

#include "daemon/config/config.h"
#include "daemon/config/observation.h"

using namespace gmgate;
using namespace gmgate::daemon;

namespace {

std::string file_with(const std::string& top, const std::string& sections) {
    return top + R"(
[core]
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
[[sip-interface.sip-ports]]
address = "10.1.0.1"
ims-aka-profile = "volte"
)" + sections;
}

Observation read(const std::string& top, const std::string& sections) {
    const auto config = parse_config(file_with(top, sections), "test.toml");
    REQUIRE_MESSAGE(config.has_value(), config.error().text);
    return observation_of(config->settings);
}

std::string mistake(const std::string& top, const std::string& sections) {
    const auto config = parse_config(file_with(top, sections), "test.toml");
    REQUIRE_FALSE(config.has_value());
    return config.error().text;
}

}  // namespace

TEST_CASE("Without settings: the recorder is on, HEP is UDP without a key, lines are text") {
    const auto seen = read("", "");
    CHECK(seen.recorder.octets == 16777216);
    CHECK(seen.recorder.octets_per_source == 262144);
    CHECK(seen.hep.transport == HepSettings::Transport::udp);
    CHECK(seen.hep.auth_key_file.empty());
    CHECK(seen.log_format == LogFormat::text);
    CHECK(seen.unregistered_idle == std::chrono::seconds{60});
}

TEST_CASE("What stands in the file is what counts, with quotes of either kind and numbers of any base") {
    const auto seen = read(
        "log-format = 'json'\nhep-collector = \"10.9.0.1:9061\"\nhep-transport = \"tls\"\nhep-tls-name = "
        "\"homer.example\"\nhep-tls-ca = '/etc/ca.pem'\nhep-auth-key-file = \"/etc/hep.key\"\n",
        "[limits]\nrecorded-octets = 0x0100_0000\nrecorded-octets-per-source = 100_000\n[timers]\nunregistered-idle = "
        "7\n");
    CHECK(seen.recorder.octets == 0x1000000);
    CHECK(seen.recorder.octets_per_source == 100000);
    CHECK(seen.hep.transport == HepSettings::Transport::tls);
    CHECK(seen.hep.auth_key_file == "/etc/hep.key");
    CHECK(seen.hep.tls_ca == "/etc/ca.pem");
    CHECK(seen.hep.tls_name == "homer.example");
    CHECK(seen.log_format == LogFormat::json);
    CHECK(seen.unregistered_idle == std::chrono::seconds{7});
    CHECK(read("", "[limits]\nrecorded-octets = 0\n").recorder.octets == 0);
}

TEST_CASE("Mistakes in them are told with the fix") {
    CHECK(mistake("log-format = \"jsno\"\n", "").find("did you mean \"json\"") != std::string::npos);
    CHECK(mistake("hep-collector = \"10.9.0.1:9061\"\nhep-transport = \"tls\"\n", "").find("hep-tls-name") !=
          std::string::npos);
    CHECK(mistake("hep-auth-key-file = 'a\"b'\n", "").find("quotes") != std::string::npos);
    CHECK(mistake("", "[limits]\nrecorded-octets = 100000\n").find("recorded-octets-per-source") != std::string::npos);
    CHECK(mistake("", "[limits]\nrecorded-octets-per-source = 1\n").find("65536") != std::string::npos);
    const auto warned = parse_config(
        file_with("hep-collector = \"10.9.0.1:9061\"\nhep-auth-key-file = \"/etc/hep.key\"\n", ""), "test.toml");
    REQUIRE(warned.has_value());
    REQUIRE(warned->warnings.size() == 1);
    CHECK(warned->warnings[0].find("in clear") != std::string::npos);
}
