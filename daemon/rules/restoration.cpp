#include "daemon/rules/restoration.h"

#include <algorithm>

#include <fmt/format.h>

#include "sip/message/headers.h"

namespace gmgate::daemon {

namespace {

constexpr std::string_view kMediaType = "application/3gpp-ims+xml";

// TS 24.229 §7.6.
constexpr std::string_view kBody =
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n"
    "<ims-3gpp version=\"1\"><alternative-service><type>restoration</type><reason>The home network does not answer</reason>"
    "<action>initial-registration</action></alternative-service></ims-3gpp>\r\n";

}  // namespace

bool understands_restoration(const sip::Message& request) {
    if (!has_no_to_tag(request)) return false;
    for (std::size_t i = 0; i < request.field_count(); ++i) {
        const sip::HeaderField field = request.field(i);
        if (!sip::same_token(field.name, "Accept")) continue;
        sip::Split types(field.value, ',');
        while (const auto type = types.next()) {
            const std::string_view name = sip::trim(type->substr(0, type->find(';')));
            if (sip::same_token(name, kMediaType) || sip::same_token(name, "application/*") || name == "*/*")
                return true;
        }
    }
    return false;
}

void ask_for_restoration(Answer& answer, std::string_view path_uri) {
    answer.extra.push_back(fmt::format("P-Asserted-Identity: <{}>", path_uri));
    answer.content_type = kMediaType;
    answer.body = kBody;
}

}  // namespace gmgate::daemon
