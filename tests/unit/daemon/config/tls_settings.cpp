// What a [[tls-profile]] says beside its certificate.
#include <cstdio>
#include <fstream>

#include <doctest/doctest.h>

#include "daemon/config/config.h"
#include "daemon/config/tls_settings.h"
#include "daemon/tls/profile_options.h"
#include "tests/support/lab.h"

using namespace gmgate;
using namespace gmgate::daemon;

// Names of its own: several tests are compiled as one file.
namespace tls_settings_test {

namespace {

std::string file_with(const std::string& lines) {
    return R"([core]
listen = "10.2.0.1:5060"
next-hop = "10.2.0.2:5060"
visited-network-id = "visited.example"
[[tls-profile]]
name = "other"
end-entity-cert = "/o.pem"
private-key = "/o.key"
[[tls-profile]]
name = "t"
end-entity-cert = ["/a.pem", "/b.pem"]
private-key = ["/a.key", "/b.key"]
)" + lines +
           R"(
[[sip-interface]]
realm-id = "access"
sec-agree-feature = "enabled"
sec-agree-pref = "tls"
[[sip-interface.sip-ports]]
address = "10.1.0.1"
port = 5061
transport-protocol = "TLS"
tls-profile = "t"
)";
}

std::string mistake(const std::string& lines) {
    const auto config = parse_config(file_with(lines), "test.toml");
    REQUIRE_FALSE(config.has_value());
    return config.error().text;
}

}  // namespace

TEST_CASE(
    "tls-profile: what the file says of suites, groups, versions, responses, tickets and clients is what is served") {
    const std::string folder = gmgate::test::make_temporary_folder(), path = folder + "/gmgate.toml";
    std::ofstream(path) << file_with(R"(tls-version = "1.3"
cipher-list = ["TLS_AES_256_GCM_SHA384"]
groups = ["P-384", "X25519"]
ocsp-response = ["", "/b.der"]
ticket-key-file = "/ticket.key"
mutual-authenticate = true
trusted-ca-certificates = "/ca.pem"
client-domains = ["phones.example"])");
    const auto config = load_config(path);
    REQUIRE_MESSAGE(config.has_value(), config.error().text);
    const auto options = phone_options(*config, *config->tls_profile("t"));
    REQUIRE_MESSAGE(options.has_value(), options.error().text);
    CHECK_FALSE(options->allow_tls12);
    CHECK(options->allow_tls13);
    CHECK(options->ciphers == std::vector<std::string>{"TLS_AES_256_GCM_SHA384"});
    CHECK(options->groups == std::vector<std::string>{"P-384", "X25519"});
    REQUIRE(options->certificates.size() == 2);
    CHECK(options->certificates[0].ocsp.empty());
    CHECK(options->certificates[1].ocsp == "/b.der");
    CHECK(options->ticket_key_file == "/ticket.key");
    CHECK(options->demand_client_certificate);
    CHECK(options->client_ca_file == "/ca.pem");
    CHECK(options->client_names == std::vector<std::string>{"phones.example"});
    // The other profile says nothing of it.
    const auto other = phone_options(*config, *config->tls_profile("other"));
    REQUIRE(other.has_value());
    CHECK((other->allow_tls12 && other->allow_tls13));
    CHECK((other->ciphers.empty() && other->groups.empty() && other->ticket_key_file.empty()));
    CHECK_FALSE(other->demand_client_certificate);
    // The file has gone meanwhile.
    std::remove(path.c_str());
    CHECK_FALSE(phone_options(*config, *config->tls_profile("t")).has_value());
    ::remove(folder.c_str());
}

TEST_CASE(
    "tls-profile: versions nobody serves, responses for some certificates, and clients without being asked for are mistakes") {
    for (const char* versions : {"tls-version = \"1.1\"", "tls-version = []", "tls-version = [\"1.2\", \"1.1\"]"})
        CHECK(mistake(versions).find("nothing older is served") != std::string::npos);
    CHECK(mistake("ocsp-response = \"/a.der\"").find("one file for each certificate file") != std::string::npos);
    CHECK(mistake("client-domains = [\"a.example\"]").find("need mutual-authenticate = true") != std::string::npos);
    CHECK(mistake("mutual-authenticate = \"perhaps\"").find("mutual-authenticate") != std::string::npos);
}

}  // namespace tls_settings_test
