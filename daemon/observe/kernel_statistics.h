// What the kernel counts for the whole network namespace: /proc/net/xfrm_stat and /proc/net/tls_stat, each number with
// its meaning.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace gmgate::daemon {

struct KernelStatistic {
    std::string name;  ///< as the kernel calls it, "XfrmInNoStates"
    std::uint64_t value = 0;
    std::string_view means;  ///< in plain words; empty for one that this version does not know
};

/// "Name<blanks>number" a line; lines that are not so are skipped.
std::vector<KernelStatistic> parse_statistics(std::string_view text);
/// Both files of this network namespace; empty where the kernel has no such file.
std::vector<KernelStatistic> xfrm_statistics();
std::vector<KernelStatistic> tls_statistics();
/// The value of one of them, 0 when it is absent.
std::uint64_t value_of(const std::vector<KernelStatistic>& statistics, std::string_view name);

}  // namespace gmgate::daemon
