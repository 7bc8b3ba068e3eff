// [lab]: what has no place in a network with subscribers.
#pragma once

#include <map>
#include <string>

namespace gmgate::daemon {

struct LabConfig {
    /// `export-keys`: gmgate-export-keys may read the keys of the SAs, and gmgated appends the secrets of TLS sessions
    /// to tls_key_log. Read at start only.
    bool export_keys = false;
    std::string tls_key_log = "/run/gmgate/tls-keys.log";  ///< `tls-key-log`: for the owner alone
};

/// Of Config::settings, which the parser has checked and a reload does not change.
LabConfig lab_of(const std::map<std::string, std::string>& settings);

}  // namespace gmgate::daemon
