// What a new configuration may change on a running gateway: everything that only the next REGISTER or timer reads. The
// rest is refused, key by key, with the reason.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "daemon/config/config.h"

namespace gmgate::daemon {

struct SettingChange {
    std::string key, before, now;  ///< "" as before or now: the key did not stand in that file
    std::string why;               ///< refused: the reason and what to do; empty: applied
};

struct ReloadReport {
    std::vector<SettingChange> applied, refused;
    std::vector<std::string> notes{};  ///< sentences about what else was done (certificates, say)
    nlohmann::json json() const;
};

/// Applies to `live` what may change; both configurations have been checked by parse_config. No object of `live` moves,
/// so that pointers into it stay good. Afterwards live.settings tells what is in force: refused keys keep their old
/// text.
ReloadReport apply_reload(Config& live, const Config& fresh);

}  // namespace gmgate::daemon
