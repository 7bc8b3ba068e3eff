// Fuzz target: an IP packet that a stranger sent to a protected port, as the tap's raw socket shows it.
#include <cstring>

#include "daemon/operate/packet_tap.h"
#include "tests/fuzz/require.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
    using namespace gmgate;
    using fuzz::require;
    const auto whole = fuzz::text_of(data, size);
    if (const auto packet = daemon::read_packet({data, size})) {
        const bool is_v6 = data[0] >> 4 == 6;
        const std::size_t at = is_v6 ? 8 : 12;
        for (const auto& [end, offset] :
             {std::pair{packet->source, at}, {packet->destination, at + (is_v6 ? 16 : 4)}}) {
            require(end.address.is_v6() == is_v6, "the family is the packet's");
            require(std::memcmp(end.address.bytes().data(), data + offset, end.address.size()) == 0,
                    "the address is the packet's");
        }
        require(!packet->is_esp || (packet->source.port.value == 0 && packet->text.empty()), "ESP has no ports");
        if (!packet->text.empty())
            require(packet->text.data() > whole.data() &&
                        packet->text.data() + packet->text.size() <= whole.data() + whole.size(),
                    "the text lies inside the packet");
    }
    const auto impi = daemon::impi_in_text(whole);
    require(impi.empty() || whole.find(impi) != std::string_view::npos, "an identity that is named stands there");
    return 0;
}
