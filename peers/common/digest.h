// HTTP Digest (RFC 2617) with the AKA algorithms of RFC 3310 and RFC 4169, and the headers that carry it.
#pragma once

#include "bytes.h"
#include "crypto.h"
#include "error.h"

#include <string>
#include <vector>

namespace gmgate::peers {

enum class DigestAlgorithm { md5, akav1_md5, akav2_md5, akav2_sha256 };

/// "MD5", "AKAv1-MD5", "AKAv2-MD5", "AKAv2-SHA-256"; an absent algorithm is MD5 (RFC 2617 §3.2.1).
[[nodiscard]] std::string_view name(DigestAlgorithm algorithm);
[[nodiscard]] std::optional<DigestAlgorithm> digest_algorithm_from(std::string_view text);
[[nodiscard]] inline bool is_aka(DigestAlgorithm algorithm) { return algorithm != DigestAlgorithm::md5; }
[[nodiscard]] Hash hash_of(DigestAlgorithm algorithm);

/// One scheme and its parameters as they stand in Authorization or WWW-Authenticate; order is kept.
class AuthHeader {
public:
    /// Tolerant like real phones need it: blanks around '=', values quoted or not.
    [[nodiscard]] static Result<AuthHeader> parse(std::string_view value);

    explicit AuthHeader(std::string scheme = "Digest") : scheme_(std::move(scheme)) {}
    [[nodiscard]] const std::string& scheme() const { return scheme_; }
    /// The unquoted value of the first parameter of that name (case-insensitive), or nullptr.
    [[nodiscard]] const std::string* find(std::string_view parameter) const;
    [[nodiscard]] std::string get(std::string_view parameter) const;
    void add(std::string parameter, std::string value, bool quoted);
    [[nodiscard]] std::string to_string() const;

private:
    struct Parameter {
        std::string name;
        std::string value;
        bool quoted;
    };
    std::string scheme_;
    std::vector<Parameter> parameters_;
};

/// What goes into a digest response.
struct DigestInput {
    Hash algorithm = Hash::md5;
    std::string username;
    std::string realm;
    std::string method;
    std::string uri;
    std::string nonce;
    std::string qop;  ///< empty: the form without qop of RFC 2069
    std::string nc;
    std::string cnonce;
    std::string body;  ///< used by qop=auth-int only
};

/// request-digest of RFC 2617 §3.2.2; the password is RES in binary for AKAv1 (RFC 3310 §3.3), and empty together with
/// auts (§3.4).
[[nodiscard]] std::string digest_response(const DigestInput& input, ByteView password);

}  // namespace gmgate::peers
