// `gmctl support`: one archive of what a bug report needs, without what names a person or opens anything.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace gmgate::gmctl {

/// A text as it may leave the house: user parts of SIP URIs and identities become "<user>", numbers behind tel: and
/// runs of ten digits or more "<digits>", runs of 32 hexadecimal digits or more "<hex>". Addresses stay: they are the
/// operator's own, and the report says that they are there.
std::string redacted(std::string_view text);
/// The same for each text in it, keys included; numbers stay.
nlohmann::json redacted(const nlohmann::json& value);

/// A configuration without its comments, which may say anything, and redacted.
std::string redacted_config(std::string_view toml);

/// How often each id stands in a log of gmgated, one line each, most often first: "register 41". Nothing else of it is
/// told, for the values name phones. Takes lines as the journal and as standard error has them.
std::string log_ids(std::string_view log);

struct SupportFile {
    std::string name, bytes;
};
/// POSIX ustar. `seconds`: the time of all files, since 1970.
std::string tar_archive(const std::vector<SupportFile>& files, std::uint64_t seconds);

struct SupportSources {
    /// Asks the gateway; what it does not answer is told in the archive instead.
    std::function<Result<nlohmann::json>(const std::string& command)> ask;
    std::string config;  ///< path; empty: the one that the gateway has read
    std::string log;     ///< path; empty: the journal of gmgated.service
};
std::vector<SupportFile> support_files(const SupportSources& sources);

}  // namespace gmgate::gmctl
