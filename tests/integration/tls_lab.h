// A lab whose gateway has TLS ports (5061, both address families) with a certificate made here and now, and digest
// users in the core.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/integration/scene.h"

namespace gmgate::test {

inline constexpr const char* kTlsName = "pcscf.visited.example";
inline constexpr const char* kDigestUser = "rcs@ims.mnc001.mcc001.3gppnetwork.org";
inline constexpr const char* kDigestPassword = "correct horse";

struct TlsLabOptions {
    std::string pref = "tls-ipsec3gpp";
    std::string profile_lines{};  ///< more lines for [[tls-profile]]
    std::string more_sections{};  ///< appended to gmgate.toml: [limits] and so on
    std::string top_lines{};      ///< top-level keys of gmgate.toml
    std::string log_level = "debug";
    std::size_t users = 8;  ///< generated AKA subscribers besides the digest user
    bool is_gateway_started = true;
};

struct CertificateWish {
    std::string host = kTlsName;  ///< Common Name, and DNS name unless `alternative` says otherwise
    std::string alternative{};    ///< subjectAltName: "URI:sip:core.example,DNS:host.core.example"
    bool rsa = false;
    int days = 90;
};
/// A key and a certificate signed by itself: FOLDER/NAME.key and FOLDER/NAME.pem.
void make_certificate(const std::string& folder, const std::string& name, const CertificateWish& wish = {});
/// The same, expired on 2020-02-01.
void make_expired_certificate(const std::string& folder, const std::string& name);
/// The same, not valid before 2080-01-01.
void make_future_certificate(const std::string& folder, const std::string& name);

struct TlsLab {
    explicit TlsLab(TlsLabOptions options = {});
    ~TlsLab();
    TlsLab(const TlsLab&) = delete;
    TlsLab& operator=(const TlsLab&) = delete;

    /// `openssl s_client -quiet` in the ue namespace, the gateway's certificate verified.
    std::unique_ptr<Program> connect(const Access& access, const std::string& version,
                                     const std::vector<std::string>& more = {}) const;
    /// gmue's options for mechanism tls, certificate verified; `security` is "tls" or "tls-prior", `version` "1.2" or
    /// "1.3".
    std::vector<std::string> phone_arguments(const std::string& security, const std::string& version) const;
    /// A line of /proc/net/tls_stat in the gateway's namespace, such as TlsCurrTxSw.
    long tls_stat(const std::string& name) const;
    /// Whether the kernel carries exactly this many connections of the gateway, in both directions, and soon.
    bool in_kernel(long connections) const;

    std::string folder = make_temporary_folder();
    std::unique_ptr<Lab> lab;
};

}  // namespace gmgate::test
