// Emergency calls that came in through an unprotected port: which dialogs they have opened, so that the rest of such a dialog passes in both
// directions and nothing else does (C-84).
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/clock.h"
#include "daemon/config.h"
#include "sip/message.h"
#include "sip/transport.h"

namespace gmgate::daemon {

/// One call: from its INVITE on.
struct EmergencyDialog {
    std::string token;       ///< user part of our Record-Route URI, unforgeable
    std::string call_id;
    std::string ue_tag;      ///< From tag of the INVITE
    sip::Flow ue;            ///< how the phone is reached: the unprotected way that it came
    TimePoint expires{};
};

/// Bounded: beyond `limit` no new call is taken. Entries end with the call or after `lifetime` without a request.
class EmergencyDialogs {
public:
    explicit EmergencyDialogs(const Clock& clock, std::size_t limit = 1024, seconds lifetime = seconds{4 * 3600})
        : clock_(&clock), limit_(limit), lifetime_(lifetime) {}

    /// The dialog of an emergency request outside a dialog, new or (a retransmission, a second request of the call) known. nullptr at the
    /// limit. The pointer is good until the next call of a non-const member.
    const EmergencyDialog* open(const sip::Message& request, const sip::Flow& ue);
    /// The dialog that a request or response belongs to: Call-ID and the phone's tag in From or To. Refreshes its lifetime.
    const EmergencyDialog* find(const sip::Message& message);
    const EmergencyDialog* find_by_token(std::string_view token) const;
    /// The phone's way has changed (another port, a new connection).
    void moved(std::string_view token, const sip::Flow& ue);
    bool covers(const sip::Message& message) const;
    void close(std::string_view token);
    std::size_t size() const { return dialogs_.size(); }

private:
    using Key = std::pair<std::string, std::string>;  ///< Call-ID, the phone's tag
    std::map<Key, EmergencyDialog>::const_iterator locate(const sip::Message& message) const;
    void expire();

    const Clock* clock_;
    std::size_t limit_;
    seconds lifetime_;
    std::map<Key, EmergencyDialog> dialogs_;
    std::unordered_map<std::string, Key> by_token_;
};

/// True when the Request-URI asks for emergency help: urn:service:sos and below (RFC 5031), or one of `numbers` as tel URI, as SIP URI with
/// user=phone, or as plain SIP user part (C-80).
bool is_emergency(std::string_view request_uri, const std::vector<std::string>& numbers);

}  // namespace gmgate::daemon
