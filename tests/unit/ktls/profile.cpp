// What an operator narrows down or adds: suites, groups, OCSP responses, ticket keys that others share; against
// openssl.
#include <fstream>
#include <functional>

#include <openssl/ocsp.h>
#include <sys/stat.h>

#include "ktls/tickets.h"
#include "tests/support/ktls_bench.h"

using namespace gmgate;
using namespace gmgate::ktls;
using namespace gmgate::ktls::test;

namespace {

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// A server whose options are changed by `change`.
Result<Context> server_with(const Folder& folder, const std::function<void(ServerOptions&)>& change) {
    ServerOptions options;
    options.certificates = {make_certificate(folder, "own")};
    change(options);
    return Context::server(std::move(options));
}

std::string refusal(const Result<Context>& made) {
    REQUIRE_FALSE(made.has_value());
    CHECK(made.error().reaction == Reaction::refused);
    return made.error().text;
}

/// Whether openssl with these options gets through to the bench's server; what it printed goes to `said`.
bool gets_through(Bench& bench, std::vector<std::string> options, std::string* said = nullptr) {
    std::vector<std::string> command{"openssl", "s_client", "-connect", "127.0.0.1:" + std::to_string(bench.port)};
    command.insert(command.end(), options.begin(), options.end());
    gmgate::test::ProgramOptions program{.command = std::move(command)};
    Program peer(std::move(program));
    const auto established = bench.accept();
    if (!established) return false;
    peer.wait_for_text("Verify return code");
    peer.close_input();
    peer.wait();
    if (said != nullptr) *said = peer.output();
    return true;
}

void shell(const Folder& folder, const std::string& script) {
    gmgate::test::run_program({.command = {"sh", "-ec", "cd " + folder.file("") + "; " + script}});
}

/// A CA, a certificate of it, and what its responder says: good.der, revoked.der.
CertificateFiles make_issued(const Folder& folder) {
    shell(folder, R"(
        key='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30'
        openssl req -x509 $key -subj /CN=ca -keyout ca.key -out ca.pem 2>/dev/null
        openssl req -x509 $key -CA ca.pem -CAkey ca.key -set_serial 0x1001 -subj /CN=sip.example.net \
          -addext subjectAltName=DNS:sip.example.net -keyout leaf.key -out leaf.pem 2>/dev/null
        openssl ocsp -no_nonce -issuer ca.pem -cert leaf.pem -reqout request.der 2>/dev/null
        answer() { openssl ocsp -index index -rsigner ca.pem -rkey ca.key -CA ca.pem -reqin request.der -respout "$@" 2>/dev/null; }
        printf 'V\t401231235959Z\t\t1001\tunknown\t/CN=sip.example.net\n' >index
        answer good.der -ndays 2
        printf 'R\t401231235959Z\t200101000000Z\t1001\tunknown\t/CN=sip.example.net\n' >index
        answer revoked.der -ndays 2
        cat ca.pem >>leaf.pem)");
    return {folder.file("leaf.pem"), folder.file("leaf.key")};
}

template <class T>
T* read_pem(const std::string& path, T* (*read)(FILE*, T**, pem_password_cb*, void*)) {
    FILE* file = std::fopen(path.c_str(), "r");
    REQUIRE(file != nullptr);
    T* object = read(file, nullptr, nullptr, nullptr);
    std::fclose(file);
    REQUIRE(object != nullptr);
    return object;
}

/// The responder's answer of yesterday: openssl's own writes none whose time is over.
void write_ended_response(const Folder& folder, const std::string& path) {
    const std::unique_ptr<X509, decltype(&X509_free)> ca(read_pem(folder.file("ca.pem"), PEM_read_X509), X509_free);
    const std::unique_ptr<X509, decltype(&X509_free)> leaf(read_pem(folder.file("leaf.pem"), PEM_read_X509), X509_free);
    const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(read_pem(folder.file("ca.key"), PEM_read_PrivateKey),
                                                                  EVP_PKEY_free);
    const std::unique_ptr<OCSP_BASICRESP, decltype(&OCSP_BASICRESP_free)> basic(OCSP_BASICRESP_new(),
                                                                                OCSP_BASICRESP_free);
    OCSP_CERTID* id = OCSP_cert_to_id(nullptr, leaf.get(), ca.get());
    ASN1_TIME* from = X509_gmtime_adj(nullptr, -7200);
    ASN1_TIME* to = X509_gmtime_adj(nullptr, -3600);
    REQUIRE(OCSP_basic_add1_status(basic.get(), id, V_OCSP_CERTSTATUS_GOOD, 0, nullptr, from, to) != nullptr);
    OCSP_CERTID_free(id);
    ASN1_TIME_free(from);
    ASN1_TIME_free(to);
    REQUIRE(OCSP_basic_sign(basic.get(), ca.get(), key.get(), EVP_sha256(), nullptr, 0) == 1);
    const std::unique_ptr<OCSP_RESPONSE, decltype(&OCSP_RESPONSE_free)> response(
        OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic.get()), OCSP_RESPONSE_free);
    const std::unique_ptr<BIO, decltype(&BIO_free_all)> out(BIO_new_file(path.c_str(), "wb"), BIO_free_all);
    REQUIRE(i2d_OCSP_RESPONSE_bio(out.get(), response.get()) == 1);
}

void write_keys(const std::string& path, const std::vector<char>& keys, ::mode_t mode = 0600) {
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    for (const char key : keys) file << std::string(80, key);
    file.close();
    ::chmod(path.c_str(), mode);
}

}  // namespace

TEST_CASE("suites: those of the list are spoken and no others, in either version") {
    Bench bench(KernelTls::off);
    auto made = server_with(bench.folder, [](ServerOptions& o) {
        o.ciphers = {"TLS_AES_256_GCM_SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384"};
    });
    REQUIRE_MESSAGE(made.has_value(), made.error().text);
    bench.context = *made;
    std::string said;
    CHECK(gets_through(bench, {"-tls1_3"}, &said));
    CHECK(has(said, "TLS_AES_256_GCM_SHA384"));
    CHECK(gets_through(bench, {"-tls1_2"}, &said));
    CHECK(has(said, "ECDHE-ECDSA-AES256-GCM-SHA384"));
    CHECK_FALSE(gets_through(bench, {"-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"}));
    CHECK_FALSE(gets_through(bench, {"-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"}));
    CHECK(bench.failures(HandshakeFailure::no_common_cipher) == 2);
}

TEST_CASE("suites: one that is not served, and a version without any, are refused with what there is") {
    const Folder folder;
    CHECK(has(refusal(server_with(folder, [](ServerOptions& o) { o.ciphers = {"AES256-SHA"}; })),
              "AES256-SHA is not served: choose of TLS_AES_128_GCM_SHA256"));
    CHECK(has(refusal(server_with(folder, [](ServerOptions& o) { o.ciphers = {"TLS_AES_128_GCM_SHA256"}; })),
              "do not allow 1.2"));
    CHECK(server_with(folder, [](ServerOptions& o) {
              o.ciphers = {"TLS_AES_128_GCM_SHA256"};
              o.allow_tls12 = false;
          }).has_value());
    CHECK(
        has(refusal(server_with(folder, [](ServerOptions& o) { o.allow_tls12 = o.allow_tls13 = false; })), "neither"));
}

TEST_CASE("groups: those of the list and no others; an unknown one is refused") {
    Bench bench(KernelTls::off);
    auto made = server_with(bench.folder, [](ServerOptions& o) { o.groups = {"P-384"}; });
    REQUIRE_MESSAGE(made.has_value(), made.error().text);
    bench.context = *made;
    CHECK(gets_through(bench, {"-tls1_3", "-groups", "P-384"}));
    CHECK_FALSE(gets_through(bench, {"-tls1_3", "-groups", "X25519"}));
    CHECK(has(refusal(server_with(bench.folder,
                                  [](ServerOptions& o) {
                                      o.groups = {"X25519", "P-1"};
                                  })),
              "X25519:P-1"));
}

TEST_CASE("OCSP: the response is shown with its certificate until it ends, and to nobody who does not ask") {
    Bench bench(KernelTls::off);
    auto files = make_issued(bench.folder);
    files.ocsp = bench.folder.file("good.der");
    auto made = server_with(bench.folder, [&](ServerOptions& o) { o.certificates = {files}; });
    REQUIRE_MESSAGE(made.has_value(), made.error().text);
    CHECK(made->certificates()[0].ocsp_file == files.ocsp);
    const auto left = made->certificates()[0].ocsp_ends - std::chrono::system_clock::now();
    CHECK((left > 24h && left < 72h));
    bench.context = *made;
    for (const char* version : {"-tls1_2", "-tls1_3"}) {
        std::string said;
        CHECK(gets_through(bench, {version, "-status", "-CAfile", bench.folder.file("ca.pem")}, &said));
        CHECK(has(said, "OCSP Response Status: successful"));
        CHECK(has(said, "Cert Status: good"));
        CHECK(gets_through(bench, {version}, &said));
        CHECK_FALSE(has(said, "Cert Status"));
    }
    // Fetched too late: the port serves without.
    write_ended_response(bench.folder, files.ocsp);
    REQUIRE(bench.context.reload().has_value());
    CHECK(bench.context.certificates()[0].ocsp_ends <= std::chrono::system_clock::now());
    std::string said;
    CHECK(gets_through(bench, {"-tls1_3", "-status"}, &said));
    CHECK_FALSE(has(said, "Cert Status"));
}

TEST_CASE("OCSP: no file, no response, another certificate's, a revoked one and a stranger's signature are refused") {
    const Folder folder, other_folder;
    const auto files = make_issued(folder), other = make_issued(other_folder);
    const auto with = [&](const std::string& response, const CertificateFiles& certificate) {
        return refusal(server_with(folder, [&](ServerOptions& o) {
            o.certificates = {certificate};
            o.certificates[0].ocsp = response;
        }));
    };
    CHECK(has(with(folder.file("none.der"), files), "No such file"));
    CHECK(has(with(folder.file("leaf.pem"), files), "is none"));
    CHECK(has(with(folder.file("good.der"), make_certificate(folder, "self")), "another certificate"));
    CHECK(has(with(folder.file("revoked.der"), files), "revoked"));
    // The same serial number, another CA.
    CHECK(has(with(other_folder.file("good.der"), files), "not signed by the issuer"));
}

TEST_CASE("tickets: with one key file a session of one server goes on at another, also after the key has changed") {
    Bench bench(KernelTls::off);
    const auto keys = bench.folder.file("ticket.key"), session = bench.folder.file("session");
    write_keys(keys, {'a'});
    const auto server = [&] {
        auto made = server_with(bench.folder, [&](ServerOptions& o) { o.ticket_key_file = keys; });
        REQUIRE_MESSAGE(made.has_value(), made.error().text);
        return std::move(*made);
    };
    const auto is_resumed = [&](const std::vector<std::string>& how) {
        std::vector<std::string> command{"openssl", "s_client", "-tls1_2", "-connect",
                                         "127.0.0.1:" + std::to_string(bench.port)};
        command.insert(command.end(), how.begin(), how.end());
        gmgate::test::ProgramOptions program{.command = std::move(command)};
        Program peer(std::move(program));
        const auto established = bench.accept();
        REQUIRE(established.has_value());
        peer.wait_for_text("Verify return code");
        peer.close_input();
        peer.wait();
        return established->info.resumed;
    };
    bench.context = server();
    CHECK_FALSE(is_resumed({"-sess_out", session}));
    bench.context = server();  // another process, another node
    CHECK(is_resumed({"-sess_in", session}));
    write_keys(keys, {'b', 'a'});
    REQUIRE(bench.context.reload().has_value());
    CHECK(is_resumed({"-sess_in", session}));
    write_keys(keys, {'b'});
    REQUIRE(bench.context.reload().has_value());
    CHECK_FALSE(is_resumed({"-sess_in", session}));
}

TEST_CASE(
    "tickets: a key file of another size, that is missing, or that everybody may read is refused; a reload keeps what there was") {
    const Folder folder;
    const auto path = folder.file("ticket.key");
    const auto with_file = [&](ServerOptions& o) { o.ticket_key_file = path; };
    CHECK(has(refusal(server_with(folder, with_file)), "No such file"));
    write_keys(path, {});
    CHECK(has(refusal(server_with(folder, with_file)), "are 0 octets"));
    std::ofstream(path) << "short";
    CHECK(has(refusal(server_with(folder, with_file)), "are 5 octets"));
    write_keys(path, std::vector<char>(9, 'k'));
    CHECK(has(refusal(server_with(folder, with_file)), "at most 8 keys"));
    write_keys(path, {'a'}, 0644);
    CHECK(has(refusal(server_with(folder, with_file)), "chmod o="));
    write_keys(path, {'a', 'b'}, 0640);
    const auto read = TicketKeys::read_file(path);
    REQUIRE(read.has_value());
    CHECK(read->size() == 2);
    auto made = server_with(folder, with_file);
    REQUIRE(made.has_value());
    const auto before = made->state();
    write_keys(path, {});
    CHECK_FALSE(made->reload().has_value());
    CHECK(made->state() == before);
}
