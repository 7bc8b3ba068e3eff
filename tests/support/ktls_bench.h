// A TLS server of ours on the loopback, certificates made on the spot, and openssl s_client as the independent other
// side.
#pragma once

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include "ktls/handshake.h"
#include "tests/support/process.h"

namespace gmgate::ktls::test {

using namespace std::chrono_literals;
using gmgate::test::Program;

/// A folder that goes with the test.
class Folder {
public:
    Folder() {
        std::string pattern = (std::filesystem::temp_directory_path() / "ktls-test-XXXXXX").string();
        REQUIRE(::mkdtemp(pattern.data()) != nullptr);
        path_ = pattern;
    }
    Folder(const Folder&) = delete;
    ~Folder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    std::string file(const std::string& name) const { return (path_ / name).string(); }

private:
    std::filesystem::path path_;
};

struct CertificateRequest {
    std::string name = "sip.example.net";
    bool rsa = false;
    std::chrono::seconds from = -24h;
    std::chrono::seconds to = 24h * 30;
};

/// Keys of one run: made once, because RSA takes long.
inline EVP_PKEY* rsa_key() {
    static EVP_PKEY* const key = EVP_RSA_gen(2048U);
    return key;
}

/// A self-signed certificate and its key, in `folder`/`label`.crt and .key.
inline CertificateFiles make_certificate(const Folder& folder, const std::string& label,
                                         const CertificateRequest& request = {}) {
    const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(request.rsa ? rsa_key() : EVP_EC_gen("P-256"),
                                                                  EVP_PKEY_free);
    if (request.rsa) EVP_PKEY_up_ref(key.get());
    const std::unique_ptr<X509, decltype(&X509_free)> certificate(X509_new(), X509_free);
    X509_set_version(certificate.get(), 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate.get()), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate.get()), request.from.count());
    X509_gmtime_adj(X509_getm_notAfter(certificate.get()), request.to.count());
    X509_set_pubkey(certificate.get(), key.get());
    X509_NAME* subject = X509_get_subject_name(certificate.get());
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(request.name.c_str()), -1, -1, 0);
    X509_set_issuer_name(certificate.get(), subject);
    const auto names = "DNS:" + request.name;
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, names.c_str());
    X509_add_ext(certificate.get(), extension, -1);
    X509_EXTENSION_free(extension);
    REQUIRE(X509_sign(certificate.get(), key.get(), EVP_sha256()) > 0);
    CertificateFiles files{folder.file(label + ".crt"), folder.file(label + ".key")};
    FILE* out = std::fopen(files.chain.c_str(), "w");
    PEM_write_X509(out, certificate.get());
    std::fclose(out);
    out = std::fopen(files.key.c_str(), "w");
    PEM_write_PrivateKey(out, key.get(), nullptr, nullptr, 0, nullptr, nullptr);
    std::fclose(out);
    return files;
}

struct Suite {
    const char* version;  ///< s_client's option
    std::vector<std::string> select;
    const char* name;  ///< as OpenSSL reports it
    Version wanted;
    Cipher cipher;
};

inline const std::vector<Suite>& suites() {
    static const std::vector<Suite> all{
        {"-tls1_3",
         {"-ciphersuites", "TLS_AES_128_GCM_SHA256"},
         "TLS_AES_128_GCM_SHA256",
         Version::tls13,
         Cipher::aes_128_gcm},
        {"-tls1_3",
         {"-ciphersuites", "TLS_AES_256_GCM_SHA384"},
         "TLS_AES_256_GCM_SHA384",
         Version::tls13,
         Cipher::aes_256_gcm},
        {"-tls1_3",
         {"-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"},
         "TLS_CHACHA20_POLY1305_SHA256",
         Version::tls13,
         Cipher::chacha20_poly1305},
        {"-tls1_2",
         {"-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"},
         "ECDHE-ECDSA-AES128-GCM-SHA256",
         Version::tls12,
         Cipher::aes_128_gcm},
        {"-tls1_2",
         {"-cipher", "ECDHE-RSA-AES128-GCM-SHA256"},
         "ECDHE-RSA-AES128-GCM-SHA256",
         Version::tls12,
         Cipher::aes_128_gcm},
        {"-tls1_2",
         {"-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"},
         "ECDHE-ECDSA-AES256-GCM-SHA384",
         Version::tls12,
         Cipher::aes_256_gcm},
        {"-tls1_2",
         {"-cipher", "ECDHE-RSA-AES256-GCM-SHA384"},
         "ECDHE-RSA-AES256-GCM-SHA384",
         Version::tls12,
         Cipher::aes_256_gcm},
        {"-tls1_2",
         {"-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"},
         "ECDHE-ECDSA-CHACHA20-POLY1305",
         Version::tls12,
         Cipher::chacha20_poly1305},
        {"-tls1_2",
         {"-cipher", "ECDHE-RSA-CHACHA20-POLY1305"},
         "ECDHE-RSA-CHACHA20-POLY1305",
         Version::tls12,
         Cipher::chacha20_poly1305},
    };
    return all;
}

/// One loop, one listening socket, one context with an ECDSA and an RSA certificate of the same name.
class Bench {
public:
    explicit Bench(KernelTls mode)
        : options_(server_options()), context(make_context()), handshaker(make_handshaker(mode)) {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t length = sizeof address;
        listener_ = OwnedFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        REQUIRE(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
        REQUIRE(::listen(listener_.get(), 16) == 0);
        REQUIRE(::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &length) == 0);
        port = ntohs(address.sin_port);
    }

    Folder folder;
    asio::io_context io;

private:
    ServerOptions options_;

public:
    Context context;
    Handshaker handshaker;
    std::uint16_t port = 0;

    /// Runs the loop until the condition holds; false at the deadline.
    template <class Condition>
    bool until(Condition condition, std::chrono::milliseconds deadline = 30s) {
        const auto end = std::chrono::steady_clock::now() + deadline;
        while (!condition()) {
            if (std::chrono::steady_clock::now() >= end) return false;
            io.restart();
            io.run_one_for(2ms);
        }
        return true;
    }
    template <class T>
    T get(Task<T> task) {
        auto result = start(std::move(task));
        REQUIRE(until([&] { return result->has_value(); }));
        return std::move(**result);
    }
    /// Starts a coroutine; its value appears in what is returned.
    template <class T>
    std::shared_ptr<std::optional<T>> start(Task<T> task) {
        auto result = std::make_shared<std::optional<T>>();
        asio::co_spawn(io, keep(std::move(task), result), [](const std::exception_ptr& e) { CHECK(!e); });
        return result;
    }

    OwnedFd accept_socket() {
        OwnedFd socket;
        REQUIRE(until([&] {
            socket = OwnedFd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
            return socket.is_open();
        }));
        return socket;
    }
    OwnedFd connect_socket() const {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address.sin_port = htons(port);
        OwnedFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        REQUIRE(::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
        return socket;
    }
    /// The next client's handshake, to its end.
    Result<Established> accept(std::chrono::milliseconds limit = 20s) {
        return get(handshaker.accept(accept_socket(), context, limit));
    }

    std::unique_ptr<Program> s_client(const Suite& suite, std::vector<std::string> more = {}) const {
        std::vector<std::string> command{"openssl", "s_client", "-connect", "127.0.0.1:" + std::to_string(port),
                                         suite.version};
        command.insert(command.end(), suite.select.begin(), suite.select.end());
        command.insert(command.end(), more.begin(), more.end());
        gmgate::test::ProgramOptions options{.command = std::move(command)};
        return std::make_unique<Program>(std::move(options));
    }
    /// Reads until `size` bytes have come or the peer has ended.
    std::string read(Connection& connection, std::size_t size) {
        std::string all;
        while (all.size() < size) {
            const auto count = get(connection.read(all));
            REQUIRE_MESSAGE(count.has_value(), count.error().text);
            if (*count == 0) break;
        }
        return all;
    }
    void write(Connection& connection, const std::string& text) {
        const auto written = get(connection.write(text));
        REQUIRE_MESSAGE(written.has_value(), written.error().text);
    }
    std::uint64_t failures(HandshakeFailure reason) const {
        return handshaker.counters().handshakes_failed[static_cast<std::size_t>(reason)];
    }

private:
    template <class T>
    static Task<> keep(Task<T> task, std::shared_ptr<std::optional<T>> result) {
        T value = co_await std::move(task);
        result->emplace(std::move(value));
    }
    ServerOptions server_options() {
        ServerOptions options;
        CertificateRequest rsa;
        rsa.rsa = true;
        options.certificates = {make_certificate(folder, "ec"), make_certificate(folder, "rsa", rsa)};
        return options;
    }
    Context make_context() {
        auto made = Context::server(options_);
        REQUIRE_MESSAGE(made.has_value(), made.error().text);
        return std::move(*made);
    }
    Handshaker make_handshaker(KernelTls mode) {
        HandshakerOptions options;
        options.kernel = mode;
        auto made = Handshaker::make(io.get_executor(), options);
        REQUIRE_MESSAGE(made.has_value(), made.error().text);
        return std::move(*made);
    }
    OwnedFd listener_;
};

}  // namespace gmgate::ktls::test
