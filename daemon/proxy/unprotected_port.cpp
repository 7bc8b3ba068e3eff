#include "daemon/proxy/unprotected_port.h"

#include "sip/message/headers.h"

namespace gmgate::daemon {

using sip::HeaderId;

std::string_view to_string(UnprotectedVerdict verdict) {
    switch (verdict) {
        case UnprotectedVerdict::emergency:
            return "emergency";
        case UnprotectedVerdict::reject_403:
            return "403";
        case UnprotectedVerdict::reject_420:
            return "420";
        case UnprotectedVerdict::reject_494:
            return "494";
        case UnprotectedVerdict::reject_421:
            return "421";
        case UnprotectedVerdict::reject_502:
            return "502";
        case UnprotectedVerdict::drop:
            return "drop";
    }
    return "?";
}

UnprotectedVerdict judge_unprotected(const sip::Message& message, const SipInterface& interface,
                                     const EmergencyDialogs& dialogs) {
    // C-1: emergency first. C-84: what belongs to an emergency dialog passes, ACK too, and nothing else by its Call-ID.
    // A request outside a dialog needs an emergency URI of its own, whatever its Call-ID.
    const bool is_initial =
        message.is_request() && message.method() != sip::Method::ack && sip::tag_of(message, HeaderId::to).empty();
    if (!is_initial && message.is_request() && dialogs.permits(message)) return UnprotectedVerdict::emergency;
    if (message.is_response() || message.method() == sip::Method::ack) return UnprotectedVerdict::drop;  // G-9
    if (is_initial && interface.anonymous_emergency && is_emergency_request(message, interface.emergency_numbers))
        return UnprotectedVerdict::emergency;  // C-80

    // sec-agree in Require *or* Proxy-Require is enough.
    const bool asks = sip::has_option_tag(message, HeaderId::require, "sec-agree") ||
                      sip::has_option_tag(message, HeaderId::proxy_require, "sec-agree");
    if (asks && interface.serves_clear_ports()) return UnprotectedVerdict::reject_494;
    if (asks && sip::has_option_tag(message, HeaderId::proxy_require, "sec-agree"))
        return UnprotectedVerdict::reject_420;
    if (interface.sec_agree_feature && interface.server_initiated) {  // RFC 3329 §2.3.2
        if (sip::via_count(message) != 1) return UnprotectedVerdict::reject_502;
        return sip::has_option_tag(message, HeaderId::supported, "sec-agree") ? UnprotectedVerdict::reject_494
                                                                              : UnprotectedVerdict::reject_421;
    }
    // With the feature off there is still nobody behind this port whom the gateway knows (C-62).
    return UnprotectedVerdict::reject_403;
}

}  // namespace gmgate::daemon
