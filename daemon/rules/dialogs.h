// Which dialogs have passed here. Nothing is kept of a dialog: our Record-Route URIs carry a mark beside the token,
// which only this gateway can make, and the phone and the core bring it back in the Route of every further request. The
// README of this folder tells what it costs.
//
// The user part of our URI is TOKEN, "." and marks of one letter and 16 hexadecimal digits each:
//   o  for the core, in requests of the phone: over the phone's tag, which the core sends back in To
//   t  for the core, in requests to the phone: over the other end's tag, which the core sends back in From
//   p  for the phone: over the other end's tag, which the phone sends back in To, and the rest of the dialog's route
//   set
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/siphash.h"
#include "daemon/registrations/registration.h"
#include "daemon/rules/own_hosts.h"
#include "daemon/rules/own_names.h"
#include "sip/message/edit.h"
#include "sip/message/message.h"

namespace gmgate::daemon {

/// Which way a forwarded INVITE went: its answer comes from there.
enum class Leg { to_core, to_phone };

/// A contact as the marks name it.
std::string contact_text(const ContactKey& key);

/// Every mark is over the Call-ID and the contact (IMPI, instance, reg-id) whose dialog it is, too: it is of no use to
/// another phone, and it stays good when the contact registers again, moves, or gets another token. Copies share
/// nothing; no I/O.
class DialogMarks {
public:
    DialogMarks();  ///< a fresh key: dialogs are known until the process ends
    /// From now on this key, that of the process before: its dialogs are known.
    void use_key(const SipHashKey& key) { key_ = key; }

    /// User part of our Record-Route pair in a request of the phone to the core.
    std::string user_towards_core(std::string_view token, const ContactKey& owner, const sip::Message& request) const;
    /// The same in a request of the core to the phone, whose Record-Route is what the phone will send back behind our
    /// pair.
    std::string user_towards_ue(std::string_view token, const ContactKey& owner, const sip::Message& request) const;
    /// Marks our pair in the Record-Route of a response to the phone: now the other end's tag and the route set are
    /// known (RFC 3261 §16.7 step 8 lets a proxy rewrite its own value). A response without To tag or without our pair
    /// stays as it is.
    void mark_response(sip::Edit& edit, const sip::Message& response, std::string_view token, const ContactKey& owner,
                       const OwnHosts& own_hosts) const;

    /// True when a request of the phone, whose Route is `route`, belongs to a dialog of this contact that passed here:
    /// our mark stands on top of the Route, and the To tag and the rest of the Route are those that it was made over.
    bool knows_from_ue(const ContactKey& owner, const sip::Message& request, const OwnRoute& route) const;
    /// The same for a request of the core; `user` is that of our URI on top of its Route (own_user_of).
    bool knows_from_core(const ContactKey& owner, const sip::Message& request, std::string_view user) const;

    /// Follows our branch in an INVITE: with it a 2xx that comes when the transaction is forgotten (RFC 3261 §13.3.1.4)
    /// is known as the answer to this INVITE, from the one to whom it went. `whom`: contact_text of the phone on either
    /// leg, the token of an emergency call. "" for other methods, whose late answers go nowhere.
    std::string answer_mark(Leg leg, std::string_view whom, const sip::Message& request) const;
    /// True when the topmost Via of the response carries that mark of the INVITE that it answers: made here, for this
    /// leg and this phone, over Call-ID, From tag, CSeq and the Via below ours.
    bool is_own_answer(Leg leg, std::string_view whom, const sip::Message& response) const;

private:
    std::string answer_mark(Leg leg, std::string_view whom, const sip::Message& message,
                            std::string_view next_via) const;
    std::string mark(char kind, const ContactKey& owner, const sip::Message& message, std::string_view tag,
                     std::string_view route = {}) const;

    SipHashKey key_{};
};

/// The methods of a call once it is begun: all that passes in an emergency dialog (C-82, C-84).
bool is_call_method(sip::Method method);

}  // namespace gmgate::daemon
