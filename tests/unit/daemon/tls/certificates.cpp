// Certificates in use: reloaded all or none, warned about ahead of time, again and again.
#include <filesystem>
#include <fstream>

#include <doctest/doctest.h>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>

#include "daemon/tls/certificates.h"
#include "tests/support/lab.h"

using namespace gmgate;
using namespace gmgate::daemon;
using namespace std::chrono_literals;

namespace {

struct Files {
    std::string folder = gmgate::test::make_temporary_folder();
    ~Files() {
        std::error_code ignored;
        std::filesystem::remove_all(folder, ignored);
    }
    ktls::CertificateFiles make(const std::string& name, int days) const {
        ktls::CertificateFiles files{folder + "/" + name + ".pem", folder + "/" + name + ".key"};
        gmgate::test::run_program(
            {.command = {"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                         "-days", std::to_string(days), "-subj", "/CN=" + name, "-addext", "subjectAltName=DNS:" + name,
                         "-keyout", files.key, "-out", files.chain}});
        return files;
    }
};

ktls::Context context_of(const ktls::CertificateFiles& files) {
    auto made = ktls::Context::server({.certificates = {files}});
    REQUIRE_MESSAGE(made.has_value(), made.error().text);
    return std::move(*made);
}

}  // namespace

TEST_CASE("Certificates: a reload takes all files of a profile or none, and one profile does not hold up another") {
    const Files files;
    asio::io_context loop;
    TlsCertificates certificates(loop.get_executor());
    const auto a_files = files.make("a.example", 90), b_files = files.make("b.example", 90);
    const auto a = certificates.add("a", context_of(a_files), std::chrono::days{30});
    const auto b = certificates.add("b", context_of(b_files), std::chrono::days{30});
    const auto a_before = a->state(), b_before = b->state();

    files.make("a.example", 90);
    std::filesystem::remove(b_files.key);  // the first is good and taken, the second stays as it was
    const auto failed = certificates.reload();
    REQUIRE_FALSE(failed.has_value());
    CHECK(failed.error().text.find("b: ") == 0);
    CHECK(failed.error().text.find(b_files.key) != std::string::npos);
    CHECK(failed.error().text.find("a: ") == std::string::npos);
    CHECK(a->state() != a_before);
    CHECK(b->state() == b_before);

    files.make("b.example", 90);
    REQUIRE(certificates.reload().has_value());
    CHECK(a->state() != a_before);
    CHECK(b->state() != b_before);
}

TEST_CASE("Certificates: each that ends within its time is warned about, at once, after a reload and with every look") {
    const Files files;
    asio::io_context loop;
    TlsCertificates certificates(loop.get_executor());
    certificates.add("soon", context_of(files.make("soon.example", 5)), std::chrono::days{30});
    CHECK(certificates.warnings() == 1);
    certificates.add("later", context_of(files.make("later.example", 20)), std::chrono::days{10});
    CHECK(certificates.warnings() == 1);
    const auto now = std::chrono::system_clock::now();
    CHECK(certificates.warn(now) == 1);
    CHECK(certificates.warn(now + std::chrono::days{12}) == 2);  // the first has ended by then
    CHECK(certificates.warn(now - std::chrono::days{40}) == 0);
    const auto before = certificates.warnings();
    REQUIRE(certificates.reload().has_value());
    CHECK(certificates.warnings() == before + 1);

    asio::co_spawn(loop, certificates.watch(5ms), asio::detached);
    while (certificates.warnings() < before + 4) loop.run_one_for(10s);
    certificates.stop();
    loop.run_for(10s);
    CHECK(loop.stopped());
}
