// What a reginfo document means for one contact of ours (TS 24.229 §5.2.5.2, RFC 3680 §5).
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/endpoint.h"
#include "base/types.h"
#include "daemon/reg_event/reginfo.h"
#include "daemon/registrations/registration.h"

namespace gmgate::daemon {

/// A contact of ours as a document may name it; views into the registration.
struct OwnContact {
    std::string_view uri, instance, reg_id;  ///< "" when the phone told none
    std::optional<Endpoint> source;          ///< where its REGISTER came from
    std::vector<std::string_view> identities;
};
/// As far as it concerns one identity of the registration and its implicit set.
OwnContact own_contact(const Registration& registration, const RegisteredIdentity& identity);

/// What a document says of one contact.
struct ContactNews {
    bool is_terminated = false;
    std::optional<seconds> expires;  ///< of an active contact
};
/// C-52: what the document says of our contact; nullopt: nothing. Only registrations of the contact's own identities
/// count, and in them a contact that is ours by its URI, that does not contradict instance or reg-id, and that is no
/// emergency contact: neither a former address of the phone nor its emergency binding speaks of ours. It is terminated
/// when no registration of the document holds it active and at least one says that it has ended.
std::optional<ContactNews> news_of(const RegInfo& info, const OwnContact& ours);

}  // namespace gmgate::daemon
