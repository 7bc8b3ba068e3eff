// Emergency calls that came in through an unprotected port: which dialogs they have opened, so that the rest of such a
// dialog passes in both directions and nothing else does (C-84).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/source.h"
#include "daemon/config/config.h"
#include "daemon/core/next_hops.h"
#include "sip/message/message.h"
#include "sip/transport/transport.h"

namespace gmgate::daemon {

/// One answerer of a call; a call that forks has several.
struct EmergencyLeg {
    std::string tag;
    std::vector<std::string> route;    ///< the dialog's route set behind us, as the phone would write it
    std::vector<std::string> targets;  ///< URIs of its Contact, the latest first: a request may cross a target refresh
};

/// One call: from its INVITE on.
struct EmergencyDialog {
    std::string token;  ///< of our Record-Route URI, unforgeable (emergency_marks.h)
    std::string call_id;
    std::string ue_tag;     ///< From tag of the INVITE
    std::string asked_for;  ///< its Request-URI
    sip::Flow ue;           ///< how the phone is reached: the unprotected way that it came
    TimePoint expires{};
    std::optional<Target> hop;  ///< the element of the core that has the call: it sent the last response to its INVITE
    std::vector<EmergencyLeg> legs;  ///< bounded
    std::function<void()> end;       ///< ends its INVITE when it gives way; empty once it is answered
    std::uint64_t order = 0;         ///< of its INVITE among the unanswered; 0: it is answered

    /// The leg that a request of the phone names in To; nullptr: none.
    const EmergencyLeg* leg(std::string_view tag) const;
};

struct EmergencyLimits {
    std::size_t calls = 1024;
    std::size_t unanswered_per_source = 16;
};

/// Bounded: whoever can send a datagram can begin a call, so an unanswered one gives way to a newer one, the oldest of
/// its source beyond `unanswered_per_source`, and the oldest of all beyond `calls`. An answered one never does. Entries
/// end with the call or after `lifetime` without a request.
class EmergencyDialogs {
public:
    explicit EmergencyDialogs(const Clock& clock, EmergencyLimits limits = {}, seconds lifetime = seconds{4 * 3600})
        : clock_(&clock), limits_(limits), lifetime_(lifetime) {}

    /// The dialog of an emergency request outside a dialog, new or (a retransmission, a second request of the call)
    /// known. nullptr when every place is taken by an answered call. The pointer is good until the next call of a
    /// non-const member.
    const EmergencyDialog* open(const sip::Message& request, const sip::Flow& ue);
    /// A call whose marks have proven it, with what one of its requests shows: known again, or its leg completed when
    /// it is known. It gives way like an unanswered one until answered(). True when it was not known; a call that
    /// cannot be taken (no place, or another one with its Call-ID and tag) is left out.
    bool revive(EmergencyDialog dialog);
    /// The dialog that a request of the phone belongs to, by Call-ID and From tag; refreshes its lifetime. Whether it
    /// may pass is permits()'.
    const EmergencyDialog* find(const sip::Message& request);
    const EmergencyDialog* find_by_token(std::string_view token) const;
    /// C-84: true for a request inside a dialog that the phone may send there: a method of a call, the tags of both
    /// ends, and the target that the other end named.
    bool permits(const sip::Message& request) const;
    /// The same, over the connection that the phone is reached by.
    bool permits_on(const sip::Message& request, const sip::Flow& flow) const;
    /// True for a message of either end with both tags of a dialog.
    bool covers(const sip::Message& message) const;

    /// What a message of the core tells of its end: tag, Contact, and in a response to a request outside a dialog the
    /// route set. `route` is in the phone's order.
    void learn(std::string_view token, const sip::Message& message, std::vector<std::string> route);
    /// Which element answers for the call.
    void stays_at(std::string_view token, const Target& hop);
    /// The call stands: it does not give way any more.
    void answered(std::string_view token);
    /// What ends the INVITE of a call that gives way.
    void on_evicted(std::string_view token, std::function<void()> end);
    /// The phone's way has changed (another port, a new connection).
    void moved(std::string_view token, const sip::Flow& ue);
    void close(std::string_view token);
    /// True when a call goes over that connection.
    bool uses(sip::ConnectionId connection) const { return connections_.contains(connection); }
    std::size_t size() const { return dialogs_.size(); }
    std::uint64_t evicted() const { return evicted_; }

private:
    using Key = std::pair<std::string, std::string>;  ///< Call-ID, the phone's tag
    using Dialogs = std::map<Key, EmergencyDialog>;
    const EmergencyDialog* at(const sip::Message& message, sip::HeaderId phones_side) const;
    EmergencyDialog* by_token(std::string_view token);
    bool make_room(const Address& source);
    const EmergencyDialog* add(EmergencyDialog dialog, const Address& source);
    void forget_unanswered(EmergencyDialog& dialog);
    void erase(Dialogs::iterator at);
    void leave_connection(const EmergencyDialog& dialog);
    void evict(std::uint64_t order);
    void expire();

    const Clock* clock_;
    EmergencyLimits limits_;
    seconds lifetime_;
    Dialogs dialogs_;
    std::unordered_map<std::string, Key> by_token_;
    std::unordered_multiset<sip::ConnectionId> connections_;    ///< of the phones' ends
    std::map<std::uint64_t, Key> unanswered_;                   ///< oldest first
    std::map<Address, std::set<std::uint64_t>> unanswered_of_;  ///< by source prefix
    std::uint64_t last_order_ = 0, evicted_ = 0;
};

/// True when the Request-URI asks for emergency help: urn:service:sos and below (RFC 5031), or one of `numbers` as tel
/// URI, as SIP URI with user=phone, or as plain SIP user part (C-80).
bool is_emergency(std::string_view request_uri, const std::vector<std::string>& numbers);

/// True for a request that begins an emergency session or asks for help by itself: INVITE and MESSAGE to such a URI.
/// TS 24.229 §5.2.10 screens initial requests for a dialog and standalone transactions; what else names an emergency
/// URI (OPTIONS, SUBSCRIBE, PUBLISH, REGISTER, BYE outside a dialog, a method that nobody knows) brings no help and is
/// judged like a request to any other URI (C-80).
bool is_emergency_request(const sip::Message& request, const std::vector<std::string>& numbers);

/// True when the phone has not said that it is an emergency: one of `numbers`, and no service URN ("non-UE-detected",
/// TS 24.229 §5.2.10).
bool is_dialled_number(const sip::Message& request, const std::vector<std::string>& numbers);

}  // namespace gmgate::daemon
