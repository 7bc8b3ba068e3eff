// Certificates and keys from files, ticket keys, and the key schedule.
#include <fstream>

#include "ktls/key_schedule.h"
#include "ktls/tickets.h"
#include "tests/support/ktls_bench.h"

using namespace gmgate;
using namespace gmgate::ktls;
using namespace gmgate::ktls::test;

namespace {

std::string error_of(ServerOptions options) {
    const auto made = Context::server(std::move(options));
    REQUIRE_FALSE(made.has_value());
    CHECK(made.error().reaction == Reaction::refused);
    return made.error().text;
}

ServerOptions with(std::vector<CertificateFiles> certificates) {
    ServerOptions options;
    options.certificates = std::move(certificates);
    return options;
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::vector<std::uint8_t> bytes(std::string_view hex) {
    std::vector<std::uint8_t> out;
    for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
        out.push_back(static_cast<std::uint8_t>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
    return out;
}

template <std::size_t N>
std::vector<std::uint8_t> exposed(const Secret<N>& secret) {
    return {secret.expose().begin(), secret.expose().end()};
}

}  // namespace

TEST_CASE("context: an ECDSA and an RSA certificate of one name stand side by side") {
    const Folder folder;
    CertificateRequest rsa;
    rsa.rsa = true;
    const auto made = Context::server(with({make_certificate(folder, "a"), make_certificate(folder, "b", rsa)}));
    REQUIRE_MESSAGE(made.has_value(), made.error().text);
    REQUIRE(made->certificates().size() == 2);
    CHECK(made->certificates()[0].names == std::vector<std::string>{"sip.example.net"});
    CHECK(made->certificates()[0].key_type == "EC 256");
    CHECK(made->certificates()[1].key_type == "RSA 2048");
}

TEST_CASE("context: what is wrong with a file is said with its name and the fix") {
    const Folder folder;
    const auto good = make_certificate(folder, "good"), other = make_certificate(folder, "other");
    CHECK(has(error_of(with({})), "no certificate is configured"));
    auto text = error_of(with({{folder.file("none.crt"), good.key}}));
    CHECK(has(text, "none.crt"));
    CHECK(has(text, "No such file"));
    text = error_of(with({{good.chain, folder.file("none.key")}}));
    CHECK(has(text, "private key"));
    CHECK(has(text, "none.key"));
    CHECK(has(error_of(with({{good.chain, other.key}})), "does not belong to the certificate"));
    CHECK(has(error_of(with({{good.key, good.key}})), "holds no certificate"));
    CHECK(has(error_of(with({{good.chain, good.chain}})), "holds no private key"));
    CHECK(has(error_of(with({good, other})), "one certificate per key type"));
    std::ofstream(folder.file("junk.crt")) << "not a certificate";
    CHECK(has(error_of(with({{folder.file("junk.crt"), good.key}})), "holds no certificate"));
}

TEST_CASE("context: an expired certificate and one of tomorrow are refused") {
    const Folder folder;
    CertificateRequest expired, early;
    expired.to = -1h;
    early.from = 1h;
    CHECK(has(error_of(with({make_certificate(folder, "expired", expired)})), "expired on 20"));
    CHECK(has(error_of(with({make_certificate(folder, "early", early)})), "not valid before"));
}

TEST_CASE("context: the first certificate to end is warned about ahead of time") {
    const Folder folder;
    CertificateRequest soon;
    soon.rsa = true;
    soon.to = 24h * 5;
    const auto made = Context::server(with({make_certificate(folder, "a"), make_certificate(folder, "b", soon)}));
    REQUIRE(made.has_value());
    CHECK(made->expires_within(24h * 6));
    CHECK_FALSE(made->expires_within(24h * 4));
}

TEST_CASE("context: a failed reload leaves everything as it was, a good one takes the new certificate") {
    const Folder folder;
    auto files = make_certificate(folder, "a");
    auto made = Context::server(with({files}));
    REQUIRE(made.has_value());
    const auto before = made->state();
    CertificateRequest expired;
    expired.to = -1h;
    make_certificate(folder, "a", expired);
    const auto failed = made->reload();
    REQUIRE_FALSE(failed.has_value());
    CHECK(has(failed.error().text, "expired"));
    CHECK(made->state() == before);
    CertificateRequest longer;
    longer.to = 24h * 300;
    make_certificate(folder, "a", longer);
    REQUIRE(made->reload().has_value());
    CHECK(made->state() != before);
    CHECK_FALSE(made->expires_within(24h * 200));
}

TEST_CASE("tickets: the key before the current one still opens, older ones do not") {
    TicketKeys keys(3600s);
    const auto first = keys.current().name;
    REQUIRE(keys.find(first.data()).has_value());
    CHECK(keys.find(first.data())->second);
    keys.rotate();
    REQUIRE(keys.find(first.data()).has_value());
    CHECK_FALSE(keys.find(first.data())->second);
    CHECK(keys.current().name != first);
    keys.rotate();
    CHECK_FALSE(keys.find(first.data()).has_value());
}

TEST_CASE("RFC 8448 §3: traffic secrets to keys and IVs") {
    const TrafficSecret server(bytes("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643"));
    auto keys = traffic_keys(server, Cipher::aes_128_gcm);
    REQUIRE(keys.has_value());
    CHECK(exposed(keys->key) == bytes("9f02283b6c9c07efc26bb9f2ac92e356"));
    CHECK(exposed(keys->iv) == bytes("cf782b88dd83549aadf1e984"));
    const TrafficSecret client(bytes("9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5"));
    keys = traffic_keys(client, Cipher::aes_128_gcm);
    REQUIRE(keys.has_value());
    CHECK(exposed(keys->key) == bytes("17422dda596ed5d9acd890e3c63f5051"));
    CHECK(exposed(keys->iv) == bytes("5b78923dee08579033e523d9"));
}

TEST_CASE("key schedule: a secret that is not of the suite's length is refused") {
    const TrafficSecret sha256(std::vector<std::uint8_t>(32, 1)), sha384(std::vector<std::uint8_t>(48, 1)), none;
    CHECK_FALSE(traffic_keys(none, Cipher::aes_128_gcm).has_value());
    CHECK_FALSE(traffic_keys(sha256, Cipher::aes_256_gcm).has_value());
    CHECK_FALSE(traffic_keys(sha384, Cipher::chacha20_poly1305).has_value());
    const auto keys = traffic_keys(sha384, Cipher::aes_256_gcm);
    REQUIRE(keys.has_value());
    CHECK(keys->key.size() == 32);
}
