// What the kernel itself says about SAs, policies and drops, read with iproute2: a second opinion on what gmgated
// claims.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/netns.h"

namespace gmgate::test {

/// One entry of "ip -s xfrm state list nokeys".
struct KernelSa {
    std::string source{}, destination{};  ///< addresses
    std::uint32_t spi = 0;
    std::uint32_t reqid = 0;
    std::string mode{};                   ///< "transport"
    std::string auth{}, crypt{}, aead{};  ///< "hmac(sha1)", "cbc(aes)", "rfc4106(gcm(aes))"; empty when absent
    std::uint16_t source_port = 0, destination_port = 0;  ///< of the selector
    std::uint32_t mark = 0;                               ///< output-mark (XFRMA_SET_MARK), 0 when none
    std::uint64_t packets = 0, bytes = 0;
    std::uint64_t hard_seconds = 0;  ///< limit counted from when it was added; 0: none
    std::uint64_t integrity_failures = 0, replays = 0;
};

std::vector<KernelSa> list_sas(const Namespace& network);
/// Without reading them all.
std::size_t count_sas(const Namespace& network);
/// One entry per policy of "ip xfrm policy" (socket policies left out).
std::vector<std::string> list_policies(const Namespace& network);
/// /proc/net/xfrm_stat.
std::map<std::string, std::uint64_t> xfrm_counters(const Namespace& network);

std::vector<KernelSa> parse_sas(std::string_view printed);

}  // namespace gmgate::test
