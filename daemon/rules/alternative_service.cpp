#include "daemon/rules/alternative_service.h"

#include <fmt/format.h>

namespace gmgate::daemon {

Answer alternative_service(std::string_view path_uri) {
    Answer answer = make_answer(380, "Alternative Service", "an emergency number dialled as a normal call");
    answer.extra.push_back(fmt::format("P-Asserted-Identity: <{}>", path_uri));
    answer.extra.emplace_back("Contact: <urn:service:sos>");
    answer.content_type = "application/3gpp-ims+xml";
    answer.body =
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n"
        "<ims-3gpp version=\"1\"><alternative-service><type>emergency</type>"
        "<reason>This is an emergency number</reason><action>emergency-registration</action>"
        "</alternative-service></ims-3gpp>\r\n";
    return answer;
}

}  // namespace gmgate::daemon
