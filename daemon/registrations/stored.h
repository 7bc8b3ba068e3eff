// A registration as it is written down: everything that the kernel does not keep and that cannot be asked for again.
// Never a key.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "daemon/registrations/registration.h"

namespace gmgate::daemon {

struct StoredSet {
    SetNumber number;  ///< the mark of its SAs: with it a dump of the kernel is matched
    SetState state = SetState::established;
    xfrm::SetParameters parameters;
    std::string security_server, security_client;  ///< header values
    TimePoint expires{};
    bool in_use = false;
    Port port_uenc = xfrm::kEncapsulationPort;
    std::optional<Address> inner{};  ///< SaSet::inner
};

struct StoredTls {
    sip::ConnectionId connection;
    std::string security_client, security_verify;  ///< header values
};

/// Times are those of the steady clock: it runs on from process to process until the machine boots, which is as long as
/// SAs live, and no step of the wall clock moves it.
struct StoredRegistration {
    ContactKey key;
    std::string token;
    std::string contact_uri;
    std::string realm_id;
    sip::Transport transport = sip::Transport::udp;
    TimePoint expires{};
    std::vector<Impu> impus;
    std::vector<std::string> service_route;
    AuthorizedAs authorized_as;
    std::vector<RegisteredIdentity> identities;  ///< empty: a row of an older version
    std::vector<StoredSet> sets;                 ///< in the registration's order
    std::optional<StoredTls> tls;
};

StoredRegistration to_stored(const Registration& registration);
/// Without its sets and its TLS binding, which are adopted one by one.
std::unique_ptr<Registration> to_registration(const StoredRegistration& stored);
/// Reaction::reject when a header value does not parse (the row was tampered with).
Result<std::unique_ptr<SaSet>> to_set(const StoredSet& stored);
/// `flow` is that of the connection that was taken over.
Result<TlsBinding> to_binding(const StoredTls& stored, const sip::Flow& flow);

}  // namespace gmgate::daemon
