// The checks on a REGISTER that came over protection, as pure functions: each returns nothing when all is well, or the
// answer and the sentence that says why.
#pragma once

#include <optional>
#include <string>

#include "daemon/agreement/mechanism.h"
#include "daemon/registrations/registration.h"
#include "sip/message/credentials.h"
#include "sip/message/message.h"

namespace gmgate::daemon {

/// What a check found wrong: the answer to give and why.
struct Objection {
    int status = 0;             ///< 400, 403, 494…
    std::string check;          ///< name of the check, a constant word ("security-verify")
    std::string why;            ///< sentence for people
    std::string unsupported{};  ///< 420: option tags for Unsupported
};

/// IMPI of a REGISTER: username of its Digest credentials (those of Authorization, as they were read), else derived
/// from the To URI (TS 23.003 §13.4B: no ISIM).
Impi impi_of(const sip::Message& request, const sip::Credentials& credentials);

/// B-21: on a protected port the topmost Via's address must be the packet's source address. A host name is not looked
/// up.
std::optional<Objection> check_via(const sip::Message& request, const sip::Flow& flow);

/// B-37, B-63, C-26 (over a temporary set): Security-Verify equals the Security-Server sent, Security-Client equals the
/// stored one; both must be there.
std::optional<Objection> check_answer(const sip::SecurityList& verify, const sip::SecurityList& client,
                                      const SaSet& set, sip::CompareOptions options);

/// G-6, C-27 (over an established set): Security-Verify equals the last Security-Server. Security-Client, when there is
/// one, offers the same mechanisms and algorithms and the same port-s as before; new SPIs and port-c are expected.
std::optional<Objection> check_refresh(const sip::SecurityList& verify, const sip::SecurityList& client,
                                       const SaSet& set, bool client_needed, sip::CompareOptions options);

/// C-28, G-8: the private identity in Authorization is the one of the set. Absent: 403.
std::optional<Objection> check_identity(const sip::Credentials& credentials, const Impi& expected);

/// What Authorization says beside the private identity.
AuthorizedAs authorized_as(const sip::Credentials& credentials);

/// SEED-29, G-8: 403 when realm, uri or algorithm of a refresh differ from those of the REGISTER that made the
/// association: each where both have it and `compared` names it. `challenged` is what the core's latest challenge on
/// the way to this refresh asks for: a phone that does what it was asked to has changed nothing by itself.
std::optional<Objection> check_authorization(const sip::Credentials& credentials, const AuthorizedAs& association,
                                             const AuthorizedAs& challenged, const RefreshAuthorization& compared);

/// ck and ik of a 401 (C-31). `present`: both were there and well formed (32 hexadecimal digits).
struct ChallengeKeys {
    xfrm::Key128 ck, ik;
    bool present = false;
};
ChallengeKeys keys_of(const sip::Message& response);

/// Table C.3 for ipsec-3gpp: the value of integrity-protected.
/// Which set carried it tells an answer to this challenge from a repeated old response, not the nonce (C-20).
/// `over_temporary`: the REGISTER came over a set of this authentication; `over_established`: over one of the latest
/// successful one.
std::string_view integrity_protected(bool over_temporary, bool over_established, bool has_response);

}  // namespace gmgate::daemon
