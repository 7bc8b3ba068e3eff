#include "ktls/tls_rules.h"

#include <algorithm>
#include <array>
#include <string_view>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "ktls/key_schedule.h"

namespace gmgate::ktls {
namespace {

// TS 33.210 §6.2.2 and §6.2.3, cut to what a kernel can carry: AEAD and forward secrecy only. Phones without AES
// instructions ask for ChaCha20 first and get it (SSL_OP_PRIORITIZE_CHACHA).
constexpr std::array<std::string_view, 3> kSuites13{"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384",
                                                    "TLS_CHACHA20_POLY1305_SHA256"};
constexpr std::array<std::string_view, 6> kSuites12{"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256",
                                                    "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384",
                                                    "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305"};
constexpr const char* kGroups = "X25519:P-256:P-384";
// draft-ietf-tls-ecdhe-mlkem: OpenSSL has it from 3.5 on.
constexpr const char* kHybridFirst = "X25519MLKEM768:X25519:P-256:P-384";
constexpr const char* kSignatures =
    "ECDSA+SHA256:ECDSA+SHA384:ed25519:rsa_pss_rsae_sha256:rsa_pss_rsae_sha384:rsa_pss_pss_sha256:RSA+SHA256:RSA+SHA384";

std::unexpected<Error> bad_rule(std::string text) { return failure(Reaction::refused, std::move(text)); }

std::string joined(const auto& words, std::string_view separator) {
    std::string out;
    for (const std::string_view word : words) {
        if (!out.empty()) out += separator;
        out += word;
    }
    return out;
}

/// Those of `known` that are wanted, in the order of `wanted`; all when nothing in particular is.
std::string chosen(const std::vector<std::string>& wanted, const auto& known) {
    if (wanted.empty()) return joined(known, ":");
    std::vector<std::string_view> out;
    for (const auto& word : wanted)
        if (std::ranges::find(known, word) != known.end()) out.push_back(word);
    return joined(out, ":");
}

Result<void> check_ciphers(const TlsRules& rules) {
    for (const auto& word : rules.ciphers)
        if (std::ranges::find(kSuites13, word) == kSuites13.end() &&
            std::ranges::find(kSuites12, word) == kSuites12.end())
            return bad_rule("the cipher suite " + word + " is not served: choose of " + joined(kSuites13, ", ") + ", " +
                            joined(kSuites12, ", "));
    const auto lacks = [&](bool is_allowed, const auto& known) {
        return is_allowed && chosen(rules.ciphers, known).empty();
    };
    if (lacks(rules.allow_tls13, kSuites13))
        return bad_rule("TLS 1.3 is allowed and none of its cipher suites: add one, or do not allow 1.3");
    if (lacks(rules.allow_tls12, kSuites12))
        return bad_rule("TLS 1.2 is allowed and none of its cipher suites: add one, or do not allow 1.2");
    return {};
}

Result<void> set_groups(SSL_CTX* context, const TlsRules& rules) {
    if (!rules.groups.empty()) {
        const std::string list = joined(rules.groups, ":");
        if (SSL_CTX_set1_groups_list(context, list.c_str()) == 1) return {};
        ERR_clear_error();
        return bad_rule("the groups " + list + ": one of them is unknown to " +
                        std::string(OpenSSL_version(OPENSSL_VERSION_STRING)) +
                        "; X25519, P-256 and P-384 are, X25519MLKEM768 from OpenSSL 3.5 on");
    }
    if (SSL_CTX_set1_groups_list(context, kHybridFirst) == 1) return {};
    ERR_clear_error();
    if (SSL_CTX_set1_groups_list(context, kGroups) == 1) return {};
    return failure(Reaction::internal, "OpenSSL lacks a group of TS 33.210: " + take_openssl_error());
}

}  // namespace

Result<SslContextPtr> make_context(const ssl_method_st* method, const TlsRules& rules) {
    if (!rules.allow_tls12 && !rules.allow_tls13)
        return bad_rule("neither TLS 1.2 nor TLS 1.3 is allowed: allow one of them");
    if (auto ok = check_ciphers(rules); !ok) return std::unexpected(std::move(ok.error()));
    SslContextPtr context(SSL_CTX_new(method));
    if (!context) return failure(Reaction::internal, "OpenSSL makes no context: " + take_openssl_error());
    auto* const ctx = context.get();
    bool ready = SSL_CTX_set_min_proto_version(ctx, rules.allow_tls12 ? TLS1_2_VERSION : TLS1_3_VERSION) == 1 &&
                 SSL_CTX_set_max_proto_version(ctx, rules.allow_tls13 ? TLS1_3_VERSION : TLS1_2_VERSION) == 1 &&
                 SSL_CTX_set1_sigalgs_list(ctx, kSignatures) == 1;
    // Of a version that is not allowed OpenSSL keeps what it has; it is never used.
    if (rules.allow_tls13)
        ready = ready && SSL_CTX_set_ciphersuites(ctx, chosen(rules.ciphers, kSuites13).c_str()) == 1;
    if (rules.allow_tls12) ready = ready && SSL_CTX_set_cipher_list(ctx, chosen(rules.ciphers, kSuites12).c_str()) == 1;
    if (!ready)
        return failure(Reaction::internal, "OpenSSL lacks a suite or signature of TS 33.210: " + take_openssl_error());
    if (auto ok = set_groups(ctx, rules); !ok) return std::unexpected(std::move(ok.error()));
    // SSL_OP_ENABLE_KTLS is set per session; system-wide openssl.cnf must not turn it on behind our back.
    SSL_CTX_clear_options(ctx,
                          SSL_OP_ENABLE_KTLS | SSL_OP_ALLOW_UNSAFE_LEGACY_RENEGOTIATION | SSL_OP_LEGACY_SERVER_CONNECT);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                                 SSL_OP_PRIORITIZE_CHACHA | SSL_OP_CLEANSE_PLAINTEXT);
    SSL_CTX_set_mode(ctx,
                     SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_read_ahead(ctx, 0);  // what follows Finished stays in the socket, for the kernel to decrypt
    SSL_CTX_set_keylog_callback(ctx, keep_traffic_secret);
    return context;
}

}  // namespace gmgate::ktls
