// Digest challenges (RFC 2617/7616, RFC 3310), read leniently; the gateway never computes a response. Credentials are
// read strictly, and by another reader: credentials.h.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "sip/message.h"

namespace gmgate::sip {

/// One auth-param, with its place in the message, so that an edit can take it out.
struct AuthParam {
    std::string_view name;
    std::string_view value;     ///< unquoted
    std::string_view raw_value; ///< as written
    std::size_t begin = 0;      ///< offset in the *field value* of the first octet of the name
    std::size_t end = 0;        ///< offset after the value
};

/// One WWW-Authenticate or Proxy-Authenticate field value. Views into the value.
class DigestParams {
public:
    /// nullopt when the scheme is not Digest or the parameter list is not parseable at all. An unquoted comma list
    /// belongs to the parameter before it when what follows has no '='.
    static std::optional<DigestParams> parse(std::string_view value);

    /// Value of the first parameter of that name (case-insensitive), unquoted; nullopt when absent.
    std::optional<std::string_view> get(std::string_view name) const;
    const std::vector<AuthParam>& all() const { return params_; }
    /// True when a `response` parameter is present and not empty (G-17).
    bool has_response() const;

private:
    std::vector<AuthParam> params_;
};

}  // namespace gmgate::sip
