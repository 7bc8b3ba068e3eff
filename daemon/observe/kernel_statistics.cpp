#include "daemon/observe/kernel_statistics.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>
#include <utility>

namespace gmgate::daemon {
namespace {

// kernel 6.1: Documentation/networking/xfrm_proc.rst and net/xfrm/xfrm_input.c, xfrm_policy.c; the words are about this
// gateway.
constexpr std::pair<std::string_view, std::string_view> kMeanings[] = {
    {"XfrmInError", "received packets dropped for a reason that has no counter of its own"},
    {"XfrmInBufferError", "received packets dropped because memory was short"},
    {"XfrmInHdrError", "received packets with a broken ESP header"},
    {"XfrmInNoStates", "ESP for an SPI that has no SA here: stale SAs of an earlier registration, or a scan"},
    {"XfrmInStateProtoError",
     "ESP that failed in its protocol: mostly integrity failures, which are also counted on the SA"},
    {"XfrmInStateModeError", "ESP in tunnel mode where transport mode was agreed"},
    {"XfrmInStateSeqError", "replayed ESP, or ESP so late that it fell out of the replay window"},
    {"XfrmInStateExpired", "ESP on an SA whose lifetime is over"},
    {"XfrmInStateMismatch", "ESP whose ports are not those of its SA, or UDP-encapsulated where it must not be"},
    {"XfrmInStateInvalid", "ESP on an SA that is being deleted"},
    {"XfrmInTmplMismatch",
     "packets to a protected port that came in clear or over the wrong SA: dropped by the guard policies"},
    {"XfrmInNoPols", "received packets that no policy allows"},
    {"XfrmInPolBlock", "received packets that a blocking policy dropped"},
    {"XfrmInPolError", "errors in looking up inbound policies"},
    {"XfrmOutError", "outbound packets dropped for a reason that has no counter of its own"},
    {"XfrmOutBundleGenError", "outbound packets for which no chain of SAs could be built"},
    {"XfrmOutBundleCheckError", "outbound packets whose chain of SAs was no longer valid"},
    {"XfrmOutNoStates", "packets from a protected port without an SA towards the phone: dropped by the guard policies"},
    {"XfrmOutStateProtoError", "outbound packets that ESP could not process"},
    {"XfrmOutStateModeError", "outbound packets that did not fit the SA's mode"},
    {"XfrmOutStateSeqError", "outbound SAs whose sequence numbers are used up"},
    {"XfrmOutStateExpired", "outbound packets on an SA whose lifetime is over"},
    {"XfrmOutPolBlock", "outbound packets that a blocking policy dropped"},
    {"XfrmOutPolDead", "outbound packets whose policy had just been removed"},
    {"XfrmOutPolError", "errors in looking up outbound policies"},
    {"XfrmFwdHdrError", "forwarded packets with a broken header"},
    {"XfrmOutStateInvalid", "outbound packets on an SA that is being deleted"},
    {"XfrmAcquireError", "requests for an SA that nobody could answer: a packet from a protected port without an SA"},
    {"XfrmInIptfsError", "inbound packets of IP-TFS (RFC 9347), which the gateway does not use, that were wrong"},
    {"XfrmOutNoQueueSpace", "outbound packets of IP-TFS, which the gateway does not use, for which there was no room"},
    {"XfrmOutStateDirError", "an inbound SA was used for sending"},
    {"XfrmInStateDirError", "an outbound SA was used for receiving"},
    {"TlsCurrTxSw", "TLS connections whose sending side the kernel encrypts now"},
    {"TlsCurrRxSw", "TLS connections whose receiving side the kernel decrypts now"},
    {"TlsCurrTxDevice", "the same, encrypted by the network card"},
    {"TlsCurrRxDevice", "the same, decrypted by the network card"},
    {"TlsTxSw", "TLS connections handed to the kernel for sending since it started"},
    {"TlsRxSw", "TLS connections handed to the kernel for receiving since it started"},
    {"TlsTxDevice", "the same, to the network card"},
    {"TlsRxDevice", "the same, to the network card"},
    {"TlsDecryptError", "TLS records that failed authentication: damaged, forged, or the peer changed its keys"},
    {"TlsRxDeviceResync", "times that the network card lost its place in a TLS stream"},
    {"TlsDecryptRetry", "TLS 1.3 records decrypted twice because of padding"},
    {"TlsRxNoPadViolation", "TLS 1.3 records with padding although none was promised"},
    {"TlsRxRekeyOk", "key updates of peers that were followed"},
    {"TlsRxRekeyError", "key updates of peers that could not be followed"},
    {"TlsTxRekeyOk", "key updates of our own"},
    {"TlsTxRekeyError", "key updates of our own that failed"},
    {"TlsRxRekeyReceived", "key updates that peers announced"},
};

std::string read_file(const char* path) {
    std::ifstream file(path);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
}

}  // namespace

std::vector<KernelStatistic> parse_statistics(std::string_view text) {
    std::vector<KernelStatistic> found;
    while (!text.empty()) {
        const auto end = std::min(text.find('\n'), text.size());
        auto line = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        const auto name_end = line.find_first_of(" \t");
        if (name_end == std::string_view::npos || name_end == 0) continue;
        const auto digits = line.find_first_not_of(" \t", name_end);
        if (digits == std::string_view::npos) continue;
        KernelStatistic one;
        const auto [stop, error] = std::from_chars(line.data() + digits, line.data() + line.size(), one.value);
        if (error != std::errc{}) continue;
        one.name = line.substr(0, name_end);
        const auto* const known = std::ranges::find(kMeanings, one.name, [](const auto& pair) { return pair.first; });
        if (known != std::end(kMeanings)) one.means = known->second;
        found.push_back(std::move(one));
    }
    return found;
}

std::vector<KernelStatistic> xfrm_statistics() { return parse_statistics(read_file("/proc/net/xfrm_stat")); }
std::vector<KernelStatistic> tls_statistics() { return parse_statistics(read_file("/proc/net/tls_stat")); }

std::uint64_t value_of(const std::vector<KernelStatistic>& statistics, std::string_view name) {
    const auto at = std::ranges::find(statistics, name, &KernelStatistic::name);
    return at == statistics.end() ? 0 : at->value;
}

}  // namespace gmgate::daemon
