// Fuzz target: a reginfo document of a hostile core. What is read keeps the limits and RFC 3680's words, and a document
// with a DTD is never read.
#include "daemon/reg_event/reginfo.h"
#include "tests/fuzz/require.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
    using namespace gmgate;
    using fuzz::require;
    const auto text = fuzz::text_of(data, size);
    const daemon::RegInfoLimits limits{.octets = 4096, .depth = 8, .elements = 64};
    const auto info = daemon::parse_reginfo(text, limits);
    if (!info) {
        require(info.error().reaction == Reaction::reject && !info.error().text.empty(), "a refusal says why");
        return 0;
    }
    require(size <= limits.octets, "a long document is refused");
    require(text.find("<!ENTITY") == std::string_view::npos || text.find("<!--") != std::string_view::npos ||
                text.find("<![CDATA[") != std::string_view::npos,
            "entities are never declared");
    std::size_t elements = info->registrations.size();
    for (const auto& registration : info->registrations) {
        elements += registration.contacts.size();
        for (const auto& contact : registration.contacts) {
            require(contact.uri.size() <= size && contact.instance.size() <= size, "what is read stood there");
            require(!contact.expires || contact.expires->count() >= 0, "time does not run backwards");
        }
    }
    require(elements <= limits.elements, "the number of elements has a limit");
    return 0;
}
