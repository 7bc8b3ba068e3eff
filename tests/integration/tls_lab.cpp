#include "tests/integration/tls_lab.h"

#include <fstream>
#include <stdexcept>

namespace gmgate::test {

void make_certificate(const std::string& folder, const std::string& name, const CertificateWish& wish) {
    std::vector<std::string> command{
        "openssl",
        "req",
        "-x509",
        "-newkey",
        wish.rsa ? "rsa:2048" : "ec",
        "-nodes",
        "-days",
        std::to_string(wish.days),
        "-subj",
        "/CN=" + wish.host,
        "-addext",
        "subjectAltName=" + (wish.alternative.empty() ? "DNS:" + wish.host : wish.alternative),
        "-keyout",
        folder + "/" + name + ".key",
        "-out",
        folder + "/" + name + ".pem"};
    if (!wish.rsa) command.insert(command.end(), {"-pkeyopt", "ec_paramgen_curve:P-256"});
    run_program({.command = command});
}

namespace {

/// "20200101000000Z": valid in that time only.
void make_dated_certificate(const std::string& folder, const std::string& name, const std::string& begin,
                            const std::string& end) {
    make_certificate(folder, name);
    // `openssl ca` is the only one of Debian 12's commands that takes dates of the past.
    const std::string base = folder + "/" + name;
    std::ofstream(base + ".cnf")
        << "[ca]\ndefault_ca=d\n[d]\ndatabase=" << base << ".index\nserial=" << base
        << ".serial\nnew_certs_dir=" << folder
        << "\ndefault_md=sha256\npolicy=p\nx509_extensions=e\n[p]\ncommonName=supplied\n[e]\nsubjectAltName=DNS:"
        << kTlsName << "\n";
    std::ofstream(base + ".index");
    std::ofstream(base + ".serial") << "01\n";
    run_program({.command = {"openssl", "req", "-new", "-key", base + ".key", "-subj", "/CN=" + std::string(kTlsName),
                             "-out", base + ".csr"}});
    run_program(
        {.command = {"openssl", "ca", "-batch", "-selfsign", "-config", base + ".cnf", "-keyfile", base + ".key", "-in",
                     base + ".csr", "-startdate", begin, "-enddate", end, "-notext", "-out", base + ".pem"}});
}

}  // namespace

void make_expired_certificate(const std::string& folder, const std::string& name) {
    make_dated_certificate(folder, name, "20200101000000Z", "20200201000000Z");
}

void make_future_certificate(const std::string& folder, const std::string& name) {
    make_dated_certificate(folder, name, "20800101000000Z", "20810101000000Z");
}

TlsLab::TlsLab(TlsLabOptions wanted) {
    make_certificate(folder, "ecdsa");
    std::ofstream(folder + "/users.toml") << "realm = \"" << kHomeDomain << "\"\n[[user]]\nimpi = \"" << kDigestUser
                                          << "\"\npassword = \"" << kDigestPassword << "\"\n";
    auto options = plain_lab();
    options.sec_agree_pref = wanted.pref;
    options.users = wanted.users;
    options.is_gateway_started = wanted.is_gateway_started;
    options.top_lines = wanted.top_lines;
    options.log_level = wanted.log_level;
    options.core_arguments = {"--users-file", folder + "/users.toml"};
    for (const auto address : {Network::kAccess4, Network::kAccess6})
        options.more_sections += "[[sip-interface.sip-ports]]\naddress = \"" + std::string(address) +
                                 "\"\nport = 5061\ntransport-protocol = \"TLS\"\ntls-profile = \"test\"\n";
    options.more_sections += "[[tls-profile]]\nname = \"test\"\nend-entity-cert = [\"" + folder +
                             "/ecdsa.pem\"]\nprivate-key = [\"" + folder + "/ecdsa.key\"]\n" + wanted.profile_lines +
                             wanted.more_sections;
    lab = std::make_unique<Lab>(options);
}

TlsLab::~TlsLab() {
    lab.reset();
    run_program({.command = {"rm", "-rf", folder}});
}

std::unique_ptr<Program> TlsLab::connect(const Access& access, const std::string& version,
                                         const std::vector<std::string>& more) const {
    std::vector<std::string> command{"openssl",
                                     "s_client",
                                     "-connect",
                                     access.gateway_port(5061),
                                     "-CAfile",
                                     folder + "/ecdsa.pem",
                                     "-verify_return_error",
                                     "-verify_hostname",
                                     kTlsName,
                                     "-servername",
                                     kTlsName,
                                     "-quiet",
                                     version};
    command.insert(command.end(), more.begin(), more.end());
    return std::make_unique<Program>(
        ProgramOptions{.command = command, .name = "s_client", .network = &lab->network.ue});
}

std::vector<std::string> TlsLab::phone_arguments(const std::string& security, const std::string& version) const {
    return {"--security",          security,     "--tls-version", version, "--tls-ca",
            folder + "/ecdsa.pem", "--tls-name", kTlsName};
}

long TlsLab::tls_stat(const std::string& name) const {
    const auto text = lab->network.gw.run("cat /proc/net/tls_stat");
    const auto at = text.find(name);
    if (at == std::string::npos)
        throw std::runtime_error("no " + name + " in /proc/net/tls_stat: has this kernel TLS?");
    return std::stol(text.substr(at + name.size()));
}

bool TlsLab::in_kernel(long connections) const {
    return eventually([&] { return tls_stat("TlsCurrTxSw") == connections && tls_stat("TlsCurrRxSw") == connections; });
}

}  // namespace gmgate::test
