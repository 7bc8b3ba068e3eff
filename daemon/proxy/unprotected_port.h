// What may pass an unprotected port besides REGISTER: a pure decision (B-19, G-9, G-11, the feature text's rule).
#pragma once

#include <string>
#include <string_view>

#include "daemon/config/config.h"
#include "daemon/proxy/emergency.h"
#include "sip/message/message.h"

namespace gmgate::daemon {

enum class UnprotectedVerdict {
    emergency,   ///< a new emergency request, or one of a known emergency dialog
    reject_403,  ///< Forbidden
    reject_420,  ///< sec-agree asked for where it is off (A-29)
    reject_494,  ///< asks for sec-agree outside REGISTER: 494 with Security-Server (A-11, A-12)
    reject_421,  ///< server-initiated agreement (A-23): Extension Required with Security-Server
    reject_502,  ///< server-initiated agreement with more than one Via (A-22)
    drop,        ///< an ACK or a response: nobody may be answered
};
std::string_view to_string(UnprotectedVerdict verdict);

/// For any message but REGISTER and CANCEL that an unprotected port of `interface` received. Keep-alives are not SIP
/// messages and never come here.
UnprotectedVerdict judge_unprotected(const sip::Message& message, const SipInterface& interface,
                                     const EmergencyDialogs& dialogs);

}  // namespace gmgate::daemon
