#include "daemon/config/lab.h"

namespace gmgate::daemon {

// Texts stand there in quotes of either kind; the parser takes no path with a quote or a backslash in it.
LabConfig lab_of(const std::map<std::string, std::string>& settings) {
    LabConfig lab;
    const auto plain = [](const std::string& text) {
        return text.size() >= 2 && (text.front() == '"' || text.front() == '\'') ? text.substr(1, text.size() - 2)
                                                                                 : text;
    };
    if (const auto at = settings.find("lab.export-keys"); at != settings.end()) {
        const auto word = plain(at->second);
        lab.export_keys = word == "true" || word == "enabled";
    }
    if (const auto at = settings.find("lab.tls-key-log"); at != settings.end()) lab.tls_key_log = plain(at->second);
    return lab;
}

}  // namespace gmgate::daemon
