// A reginfo document (RFC 3680 §5) as values: what the registrar says of the contacts of a user. Read by expat; a
// document from a hostile or broken core costs no more than its limits.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace gmgate::daemon {

struct RegInfoContact {
    std::string uri;
    std::string instance;    ///< value of +sip.instance, with its <>; "" when not told
    std::string reg_id;      ///< value of reg-id (RFC 5626); "" when not told
    bool is_active = false;  ///< state: active or terminated
    std::string event;       ///< registered, refreshed, shortened, deactivated, rejected, …
    std::optional<std::chrono::seconds> expires;
};

struct RegInfoRegistration {
    std::string aor;
    bool is_terminated = false;  ///< state terminated; init and active are not
    std::vector<RegInfoContact> contacts;
};

struct RegInfo {
    std::uint32_t version = 0;
    bool is_full = false;  ///< state full or partial
    std::vector<RegInfoRegistration> registrations;
};

struct RegInfoLimits {
    std::size_t octets = 65536;
    std::size_t depth = 16;
    std::size_t elements = 4096;
};

/// Errors (Reaction::reject) name the line: no XML, a DTD (no document needs one, and entities are how XML hurts), a
/// limit, no reginfo, a state or number that RFC 3680 does not know, a contact with two URIs. Elements and attributes
/// of other namespaces are passed over.
Result<RegInfo> parse_reginfo(std::string_view document, const RegInfoLimits& limits = {});

}  // namespace gmgate::daemon
