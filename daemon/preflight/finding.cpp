#include "daemon/preflight/finding.h"

#include <grp.h>
#include <sys/stat.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace gmgate::daemon {
namespace {

bool is_folder(const std::filesystem::path& path) {
    struct stat found {};
    return stat(path.c_str(), &found) == 0 && S_ISDIR(found.st_mode);
}

// A missing folder is made at start, one level of it.
void check_folder(const std::string& file, const std::string& key, std::vector<Finding>& findings) {
    if (file.empty()) return;
    const auto folder = std::filesystem::path(file).parent_path();
    if (folder.empty() || is_folder(folder) || is_folder(folder.parent_path())) return;
    findings.push_back({.what = fmt::format("{} {}: there is no folder {}", key, file, folder.parent_path().string()),
                        .fix = fmt::format("mkdir -p {}, or correct the file", folder.string())});
}

bool is_group(const std::string& word) {
    const bool is_number = !word.empty() && std::ranges::all_of(word, [](unsigned char c) { return std::isdigit(c); });
    return is_number || getgrnam(word.c_str()) != nullptr;
}

}  // namespace

std::string line_of(const Finding& finding) {
    return fmt::format("{}: {}; fix: {}", finding.is_error ? "error" : "warning", finding.what, finding.fix);
}

std::vector<Finding> check_installation(const Config& config) {
    std::vector<Finding> findings;
    if (!config.control_group.empty() && !is_group(config.control_group))
        findings.push_back({.what = fmt::format("control-group \"{}\" does not exist", config.control_group),
                            .fix = fmt::format("addgroup --system {}, or correct the file", config.control_group)});
    check_folder(config.control_socket, "control-socket", findings);
    check_folder(config.restart.take_over_socket, "[restart] take-over-socket", findings);
    if (config.store.is_kept) check_folder(config.store.file, "[store] file", findings);
    return findings;
}

std::vector<AlgorithmPair> all_allowed_pairs(const Config& config) {
    std::vector<AlgorithmPair> pairs;
    for (const auto& profile : config.ims_aka_profiles)
        for (const auto pair : profile.preference)
            if (std::ranges::find(pairs, pair) == pairs.end()) pairs.push_back(pair);
    return pairs;
}

std::string kernel_lacks(const std::vector<xfrm::ProbeFinding>& findings) {
    std::set<std::string> modules;
    std::string features;
    std::size_t missing = 0;
    for (const auto& finding : findings) {
        if (finding.present) continue;
        ++missing;
        features += fmt::format("{}{}", features.empty() ? "" : "; ", finding.feature);
        if (!finding.module.empty()) modules.insert(finding.module);
    }
    if (missing == 0) return {};
    if (missing == findings.size())
        return "the kernel has no ESP at all: modprobe -a esp4 esp6 xfrm_user, or boot a kernel that has it";
    return fmt::format("the kernel lacks: {}{}; or take the algorithms out of the ims-aka-profile", features,
                       modules.empty() ? "" : fmt::format("; modprobe -a {}", fmt::join(modules, " ")));
}

}  // namespace gmgate::daemon
