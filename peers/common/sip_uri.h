// SIP URIs and name-addr values (RFC 3261 §19.1, §20.10), as owning values.
#pragma once

#include "error.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace gmgate::peers {

/// Parameters in order; a parameter without '=' has an empty value.
class Parameters {
public:
    Parameters() = default;
    /// Reads ";name=value;name" (a leading ';' is optional).
    [[nodiscard]] static Parameters parse(std::string_view text);
    [[nodiscard]] const std::string* find(std::string_view name) const;
    [[nodiscard]] bool has(std::string_view name) const { return find(name) != nullptr; }
    void set(std::string_view name, std::string value);
    void remove(std::string_view name);
    [[nodiscard]] std::string to_string() const;
    [[nodiscard]] bool empty() const { return entries_.empty(); }
    [[nodiscard]] const std::vector<std::pair<std::string, std::string>>& entries() const { return entries_; }

private:
    std::vector<std::pair<std::string, std::string>> entries_;
};

/// sip:user@host:port;parameters?headers. For tel: the number stands in `user` and `host` is empty.
struct SipUri {
    std::string scheme;
    std::string user;
    std::string host;  ///< IPv6 references keep their brackets
    std::uint16_t port = 0;
    Parameters parameters;

    [[nodiscard]] static Result<SipUri> parse(std::string_view text);
    [[nodiscard]] std::string to_string() const;
    /// scheme:user@host in lower case where case does not matter: the key of an address of record.
    [[nodiscard]] std::string aor() const;
};

/// [display-name] <URI>;parameters, or the bare form.
struct NameAddr {
    std::string display;
    std::string uri;
    Parameters parameters;

    [[nodiscard]] static Result<NameAddr> parse(std::string_view text);
    [[nodiscard]] std::string to_string() const;
};

}  // namespace gmgate::peers
