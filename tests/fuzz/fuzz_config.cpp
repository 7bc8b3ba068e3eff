// Fuzz target: gmgate.toml. A refusal names the place; what is accepted has the references and ranges that the daemon
// relies on.
#include <string>

#include "daemon/config/config.h"
#include "tests/fuzz/require.h"

namespace {

using gmgate::fuzz::require;

void check_lines(const std::string& text) {
    require(!text.empty(), "a refusal has words");
    for (std::size_t at = 0; at < text.size();) {
        require(text.compare(at, 10, "fuzz.toml:") == 0 || text.find("fuzz.toml:") < at,
                "a mistake begins with its place");
        at = text.find('\n', at);
        if (at == std::string::npos) break;
        ++at;
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
    using namespace gmgate;
    if (size > 65536) return 0;
    const auto config = daemon::parse_config(fuzz::text_of(data, size), "fuzz.toml");
    if (!config) {
        check_lines(config.error().text);
        return 0;
    }
    require(!config->sip_interfaces.empty(), "a gateway has an interface");
    require(config->xfrm.spi_start.value <= config->xfrm.spi_end.value && config->xfrm.spi_start.value > 255,
            "the SPIs are a range of free ones (RFC 4303 §2.1)");
    require(config->xfrm.mark_mask != 0, "marks have bits");
    for (const auto& interface : config->sip_interfaces)
        for (const auto& port : interface.sip_ports) {
            require(port.port.value != 0, "a sip-port has a port");
            require(port.ims_aka_profile.empty() || config->profile(port.ims_aka_profile) != nullptr,
                    "a profile that is named is there");
        }
    for (const auto& profile : config->ims_aka_profiles)
        require(profile.start_protected_client_port.value <= profile.end_protected_client_port.value,
                "protected client ports are a range");
    return 0;
}
