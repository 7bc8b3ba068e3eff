#include "daemon/registrations/stored.h"

namespace gmgate::daemon {

StoredRegistration to_stored(const Registration& registration) {
    StoredRegistration stored{.key = registration.key,
                              .token = registration.token,
                              .contact_uri = registration.contact_uri,
                              .realm_id = registration.realm_id,
                              .transport = registration.transport,
                              .expires = registration.expires,
                              .impus = registration.impus,
                              .service_route = registration.service_route.value(),
                              .authorized_as = registration.authorized_as.value(),
                              .identities = registration.identities,
                              .sets = {},
                              .tls = {}};
    for (const auto& set : registration.sets)
        stored.sets.push_back({set->number, set->state, set->parameters, set->security_server.text(),
                               set->security_client.text(), set->expires, set->in_use, set->port_uenc, set->inner});
    if (registration.tls)
        stored.tls = StoredTls{registration.tls->flow.connection, registration.tls->security_client.to_string(),
                               registration.tls->security_verify.to_string()};
    return stored;
}

std::unique_ptr<Registration> to_registration(const StoredRegistration& stored) {
    auto registration = std::make_unique<Registration>();
    registration->key = stored.key;
    registration->token = stored.token;
    registration->contact_uri = stored.contact_uri;
    registration->realm_id = stored.realm_id;
    registration->transport = stored.transport;
    registration->expires = stored.expires;
    registration->impus = stored.impus;
    registration->service_route = stored.service_route;
    registration->authorized_as = stored.authorized_as;
    registration->identities = stored.identities;
    registration->summarise();
    // An older version wrote the row and knew no list of identities, or left the one that was there as it was.
    if (registration->identities.empty() || registration->impus != stored.impus ||
        registration->service_route.value() != stored.service_route || registration->expires != stored.expires) {
        RegisteredIdentity only{
            .aor = {}, .impus = stored.impus, .service_route = stored.service_route, .expires = stored.expires};
        registration->identities.assign(1, std::move(only));
        registration->summarise();
    }
    return registration;
}

namespace {

Result<sip::SecurityList> list_of(const std::string& value) {
    if (value.empty()) return sip::SecurityList{};
    return sip::SecurityList::parse(value);
}

}  // namespace

Result<std::unique_ptr<SaSet>> to_set(const StoredSet& stored) {
    if (const auto client = list_of(stored.security_client); !client) return std::unexpected(client.error());
    auto set = std::make_unique<SaSet>();
    set->number = stored.number;
    set->state = stored.state;
    set->parameters = stored.parameters;
    set->security_server = stored.security_server;
    set->security_client = stored.security_client;
    set->expires = stored.expires;
    set->in_use = stored.in_use;
    set->port_uenc = stored.port_uenc;
    set->inner = stored.inner;
    return set;
}

Result<TlsBinding> to_binding(const StoredTls& stored, const sip::Flow& flow) {
    auto client = list_of(stored.security_client);
    if (!client) return std::unexpected(client.error());
    auto verify = list_of(stored.security_verify);
    if (!verify) return std::unexpected(verify.error());
    return TlsBinding{flow, std::move(*client), std::move(*verify)};
}

}  // namespace gmgate::daemon
