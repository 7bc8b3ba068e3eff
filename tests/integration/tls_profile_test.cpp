// What a [[tls-profile]] narrows down or adds: suites, groups, OCSP responses, shared ticket keys, client certificates;
// with openssl as the phone.
#include <csignal>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "tests/integration/tls_lab.h"

using namespace gmgate::test;

namespace {

struct Files {
    std::string folder = make_temporary_folder();
    ~Files() { run_program({.command = {"rm", "-rf", folder}}); }
    void shell(const std::string& script) const {
        run_program({.command = {"sh", "-ec", "cd " + folder + "; " + script}});
    }
};

/// What openssl says of a connection, which ends at once. Exit status and text.
std::pair<int, std::string> try_connection(const TlsLab& tls, const std::vector<std::string>& more) {
    std::vector<std::string> command{"openssl", "s_client", "-connect", "10.1.0.1:5061"};
    command.insert(command.end(), more.begin(), more.end());
    Program client({.command = command, .name = "s_client", .network = &tls.lab->network.ue});
    client.close_input();
    const int status = client.wait();
    return {status, client.output()};
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// Whether an OPTIONS over such a connection is answered.
bool is_served(const TlsLab& tls, const std::vector<std::string>& more) {
    const auto client = tls.connect({}, "-tls1_3", more);
    const auto call = unique_word("tls-");
    client->write(
        fmt::format("OPTIONS sip:x@y SIP/2.0\r\nVia: SIP/2.0/TLS {}:5070;branch=z9hG4bK{}\r\nMax-Forwards: 70\r\n"
                    "From: <sip:a@b>;tag=1\r\nTo: <sip:x@y>\r\nCall-ID: {}\r\nCSeq: 1 OPTIONS\r\n"
                    "Content-Length: 0\r\n\r\n",
                    Network::kUe4, call, call));
    return eventually([&] { return client->has_text("SIP/2.0 ") || !client->is_running(); }) &&
           client->has_text("SIP/2.0 ");
}

}  // namespace

TEST_SUITE("tls-operate") {
    TEST_CASE(
        "tls-profile: suites and groups of the file and no others; an OCSP response that is not there keeps the port closed until a reload; a session goes on after a restart") {
        const Files files;
        files.shell("openssl rand 80 >ticket.key; chmod 600 ticket.key");
        TlsLabOptions options;
        options.profile_lines = fmt::format(
            "cipher-list = [\"TLS_AES_256_GCM_SHA384\", \"ECDHE-ECDSA-AES256-GCM-SHA384\"]\ngroups = [\"P-256\"]\n"
            "ocsp-response = \"{0}/response.der\"\nticket-key-file = \"{0}/ticket.key\"\n",
            files.folder);
        TlsLab tls(options);
        Lab& lab = *tls.lab;
        CHECK(lab.gateway().has_text("tls-port-not-opened"));
        CHECK(has(lab.gateway_log(), "response.der"));
        files.shell(fmt::format(
            "cert={}/ecdsa; openssl x509 -in $cert.pem -noout -serial | sed 's/.*=//' >serial; "
            "printf 'V\t401231235959Z\t\t%s\tunknown\t/CN=x\n' $(cat serial) >index; "
            "openssl ocsp -no_nonce -issuer $cert.pem -cert $cert.pem -reqout request.der; "
            "openssl ocsp -index index -rsigner $cert.pem -rkey $cert.key -CA $cert.pem -reqin request.der -respout response.der -ndays 2",
            tls.folder));
        ::kill(lab.gateway().pid(), SIGHUP);
        lab.gateway().wait_for_text("tls-port-opened");

        const auto session = files.folder + "/session";
        const auto first = try_connection(tls, {"-tls1_2", "-status", "-sess_out", session});
        INFO(first.second);
        CHECK(has(first.second, "New, TLSv1.2, Cipher is ECDHE-ECDSA-AES256-GCM-SHA384"));
        CHECK(has(first.second, "OCSP Response Status: successful"));
        CHECK(has(first.second, "ECDH, prime256v1"));
        CHECK(has(try_connection(tls, {"-tls1_3"}).second, "Cipher is TLS_AES_256_GCM_SHA384"));
        CHECK(try_connection(tls, {"-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"}).first != 0);
        CHECK(try_connection(tls, {"-tls1_3", "-groups", "X25519"}).first != 0);

        lab.kill_gateway();
        lab.start_gateway();
        const auto again = try_connection(tls, {"-tls1_2", "-sess_in", session});
        INFO(again.second);
        CHECK(has(again.second, "Reused, TLSv1.2"));
        Phone phone(lab, {.arguments = tls.phone_arguments("tls", "1.3")});
        phone.demand_registered();
    }

    TEST_CASE(
        "tls-profile: phones must show a certificate of the right domain where that is configured: without one, or with another domain's, nobody is served") {
        const Files files;
        make_certificate(files.folder, "phone", {.host = "phone", .alternative = "URI:sip:phones.example"});
        make_certificate(files.folder, "other", {.host = "other", .alternative = "URI:sip:elsewhere.example"});
        files.shell("cat phone.pem other.pem >trusted.pem");
        TlsLabOptions options;
        options.profile_lines = fmt::format(
            "mutual-authenticate = true\ntrusted-ca-certificates = \"{}/trusted.pem\"\nclient-domains = [\"phones.example\"]\n",
            files.folder);
        const TlsLab tls(options);
        const auto with = [&](const std::string& name) {
            return std::vector<std::string>{"-cert", files.folder + "/" + name + ".pem", "-key",
                                            files.folder + "/" + name + ".key"};
        };
        CHECK(is_served(tls, with("phone")));
        CHECK_FALSE(is_served(tls, with("other")));
        CHECK_FALSE(is_served(tls, {}));
    }
}
