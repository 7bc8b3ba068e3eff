// Typed views of header field values. Each decodes only what someone uses and validates what it decodes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/endpoint.h"
#include "sip/message/message.h"

namespace gmgate::sip {

namespace detail {
bool same_letters(const char* a, const char* b, std::size_t size);
}

/// Case-insensitive comparison of tokens (RFC 3261 §7.3.1), ASCII only.
inline bool same_token(std::string_view a, std::string_view b) {
    return a.size() == b.size() && detail::same_letters(a.data(), b.data(), a.size());
}
std::string_view trim(std::string_view text);  ///< strips SP, HT, CR, LF at both ends

/// Splits `text` at `separator`, respecting quoted strings (with backslash escapes) and <…>. Elements are trimmed;
/// empty ones are returned as "". Usage: for (Split s(value, ','); auto element = s.next();) …
class Split {
public:
    Split(std::string_view text, char separator) : rest_(text), separator_(separator) {}
    std::optional<std::string_view> next();

private:
    std::string_view rest_;
    char separator_;
    bool done_ = false;
};

/// A SIP, SIPS, tel or other URI: views of its parts, nothing unescaped.
struct Uri {
    std::string_view text;        ///< whole
    std::string_view scheme;      ///< "sip"
    std::string_view user;        ///< user part without password; tel: the number
    std::string_view host;        ///< as written, IPv6 in brackets
    Port port;                    ///< 0 when absent
    std::string_view parameters;  ///< after the first ';' outside the user part, without it; may be empty
    std::string_view headers;     ///< after '?'

    static std::optional<Uri> parse(std::string_view text);
    /// nullopt: no such parameter; "" for a flag such as `lr`.
    std::optional<std::string_view> parameter(std::string_view name) const;
    bool is_sip() const { return same_token(scheme, "sip") || same_token(scheme, "sips"); }
};

/// name-addr or addr-spec with header parameters: From, To, Contact, Route, Record-Route, Path, Service-Route,
/// P-…-Identity.
struct NameAddr {
    std::string_view text;          ///< the whole element
    std::string_view display_name;  ///< as written, quotes kept
    std::string_view uri;           ///< without <>
    std::string_view
        parameters;  ///< after '>' (or after ';' of an addr-spec, RFC 3261 §20: parameters then belong to the header)
    static std::optional<NameAddr> parse(std::string_view element);
    std::optional<std::string_view> parameter(std::string_view name) const;  ///< quotes of a quoted value removed
};

/// One Via value.
struct Via {
    std::string_view text;
    std::string_view transport;  ///< "UDP"
    std::string_view host;       ///< sent-by host, IPv6 in brackets
    Port port;                   ///< 0 when absent
    std::string_view parameters;
    static std::optional<Via> parse(std::string_view element);
    std::optional<std::string_view> parameter(std::string_view name) const;
    std::string_view branch() const;  ///< "" when absent
    /// The sent-by host as an address, nullopt for a name.
    std::optional<Address> sent_by_address() const { return Address::parse(host); }
};

/// The topmost Via of a message.
std::optional<Via> top_via(const Message& message);
/// Via values of all Via fields.
std::size_t via_count(const Message& message);

/// Iterates the ;-separated generic parameters "name[=value]" of `text`, LWS around '=' and ';' allowed, quotes kept in
/// value.
struct Parameter {
    std::string_view name;
    std::string_view value;  ///< as written, quotes kept; "" when absent
    bool has_value = false;
};
std::optional<std::string_view> find_parameter(std::string_view parameters, std::string_view name);
class ParameterList {
public:
    explicit ParameterList(std::string_view text) : split_(text, ';') {}
    std::optional<Parameter> next();  ///< empty elements are skipped

private:
    Split split_;
};

/// Content of a quoted-string without quotes (escapes left as they are), or the token itself.
std::string_view unquote(std::string_view value);

/// True when a comma list of option tags (Require, Proxy-Require, Supported; several fields) names `tag`.
bool has_option_tag(const Message& message, HeaderId id, std::string_view tag);
/// Content of `expires` for a Contact element: its parameter, else the Expires header, else nullopt. Values beyond
/// 2^32-1 clamp.
std::optional<std::uint32_t> contact_expires(const Message& message, const NameAddr& contact);
std::optional<std::uint32_t> parse_u32(std::string_view digits);  ///< 1*DIGIT, whole text, no overflow
/// Tag parameter of From or To, "" when absent.
std::string_view tag_of(const Message& message, HeaderId from_or_to);

}  // namespace gmgate::sip
