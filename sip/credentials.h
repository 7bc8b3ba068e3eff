// The credentials of a request (RFC 3261 §20.7, §20.28, §22.4): read once, as a value that is carried from the check to
// the writing. What goes on is written from that value, so that nobody behind us can read another identity than the one
// that was checked.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sip/message.h"

namespace gmgate::sip {

/// What the Authorization (or Proxy-Authorization) fields of one request say. Views into the message, which must
/// outlive it.
class Credentials {
public:
    enum class Kind {
        none,       ///< there is no such field
        digest,     ///< one field with Digest credentials, which have one meaning for every reader
        other,      ///< one field with another scheme (RFC 4475 §3.3.7): nothing that we understand
        ambiguous,  ///< several fields, or credentials that readers may take differently: why() says what
    };

    Credentials() = default;
    /// Strict, because the identity hangs on it: one field; `Digest` in any case; name=value with a token, a quoted
    /// string or nothing as the value; no name twice (integrity-protected apart, of which no copy is kept: only we may
    /// say it); no backslash, no control character and no second parameter inside a value; no blank in username, and no
    /// `username*`. Tolerated, as phones send it and nobody can misread it once it is written anew: any order, blanks
    /// around `=` and `,`, empty elements, values without their quotes, and `qop=auth,auth-int` without quotes.
    static Credentials read(const Message& request, HeaderId id);

    Kind kind() const { return kind_; }
    bool is_digest() const { return kind_ == Kind::digest; }
    std::string_view why() const { return why_; }  ///< of an ambiguous one: a sentence without a full stop, static text

    /// Value of a parameter (name case-insensitive), without quotes; nullopt when absent or when these are no Digest
    /// credentials.
    std::optional<std::string_view> get(std::string_view name) const;
    std::string_view username() const { return get("username").value_or(std::string_view{}); }  ///< "": none
    /// True when a `response` parameter is present and not empty (G-17).
    bool has_response() const { return !get("response").value_or(std::string_view{}).empty(); }

    /// The field value anew: each parameter once and in the order in which it came, its name in lower case, quoted
    /// where RFC 3261 §25.1 wants quotes; then `indicator` ("integrity-protected=…"), when it is not empty. Another
    /// scheme's value comes back as it was. "" for none and ambiguous.
    std::string to_string(std::string_view indicator = {}) const;

private:
    struct Param {
        std::string_view name, value;
        bool is_quoted = false;
    };
    void refuse(std::string_view why);
    void read_digest(std::string_view text);
    bool read_param(std::string_view text, std::size_t& at);
    bool continue_list(std::string_view word);
    bool keep(const Param& param);

    Kind kind_ = Kind::none;
    std::string_view why_;
    std::string_view text_;  ///< the whole value, for another scheme
    std::vector<Param> params_;
};

/// Both header fields of one request.
struct RequestCredentials {
    Credentials authorization, proxy_authorization;

    static RequestCredentials read(const Message& request);
    /// Why they have more than one meaning, alone or together (two private identities); nullopt when all is well.
    std::optional<std::string_view> objection() const;
};

}  // namespace gmgate::sip
