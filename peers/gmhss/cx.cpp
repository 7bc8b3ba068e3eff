#include "cx.h"

#include "../common/crypto.h"
#include "../common/text.h"

#include <nlohmann/json.hpp>

namespace gmgate::peers {

using namespace diameter;

namespace {

// SIP-Authentication-Scheme, TS 29.229 §6.3.9
constexpr std::string_view kAkaScheme = "Digest-AKAv1-MD5";
constexpr std::string_view kDigestScheme = "SIP Digest";
constexpr std::string_view kUnknownScheme = "Unknown";
constexpr std::uint32_t kMaxItems = 5;

/// True when the S-CSCF takes the user on with this type, so that it needs the profile.
bool is_assignment(AssignmentType type) {
    using enum AssignmentType;
    return type == registration || type == re_registration || type == unregistered_user;
}

/// What the assignment makes of a subscription. TS 29.228 §6.1.2.1; `impi` is empty when an identity ends for all who
/// have it.
void apply(Subscription& s, AssignmentType type, const std::string& impi) {
    using enum AssignmentType;
    switch (type) {
        case no_assignment:
            return;
        case registration:
        case re_registration:
            s.is_unregistered = false;
            s.registered.insert(impi);
            return;
        case unregistered_user:
            s.is_unregistered = true;
            return;
        case authentication_failure:
        case authentication_timeout:  // an earlier registration goes on
            break;
        case timeout_deregistration_store_server_name:
        case user_deregistration_store_server_name:
            s.registered.erase(impi);
            return;
        case timeout_deregistration:
        case user_deregistration:
        case administrative_deregistration:
        case deregistration_too_much_data:
            if (impi.empty()) s.registered.clear();
            else s.registered.erase(impi);
    }
    if (!s.is_registered()) s = Subscription();
}

}  // namespace

Message CxServer::handle(const Message& request) {
    Case c{request,
           request.answer(),
           nullptr,
           request.avps.text(avp::kUserName),
           request.avps.text(avp::kPublicIdentity),
           {},
           {}};
    switch (request.command) {
        case command::kUserAuthorization:
            authorize(c);
            finish(c, "UAR");
            break;
        case command::kMultimediaAuth:
            authenticate(c);
            finish(c, "MAR");
            break;
        case command::kServerAssignment:
            assign(c);
            finish(c, "SAR");
            break;
        case command::kLocationInfo:
            locate(c);
            finish(c, "LIR");
            break;
        default:
            c.answer.is_error = true;
            add_result(c.answer.avps, result::kCommandUnsupported);
    }
    return std::move(c.answer);
}

bool CxServer::demand(Case& c, std::initializer_list<AvpName> names) {
    for (const AvpName name : names) {
        if (name == avp::kServerAssignmentType ? c.request.avps.number(name).has_value()
                                               : c.request.avps.find(name) != nullptr)
            continue;
        AvpList missing;
        missing.add(name, ByteView());
        c.answer.avps.add_group(avp::kFailedAvp, missing);
        c.result = result::kMissingAvp;
        c.why = fmt::format("AVP {} is missing", name.code);
        return false;
    }
    return true;
}

bool CxServer::identify(Case& c) {
    c.user = users_.by_impi(c.impi);
    if (!c.user || !users_.by_aor(c.impu)) {
        c.result = result::kUserUnknown;
        return false;
    }
    if (!users_.owns(*c.user, c.impu)) {
        c.result = result::kIdentitiesDontMatch;
        return false;
    }
    return true;
}

// TS 29.228 §6.1.1.1. Every visited network may be roamed in, and nobody is barred.
void CxServer::authorize(Case& c) {
    if (!demand(c, {avp::kUserName, avp::kPublicIdentity, avp::kVisitedNetworkIdentifier}) || !identify(c)) return;
    const Subscription& s = subscription(*c.user);
    const auto type = static_cast<AuthorizationType>(c.request.avps.number(avp::kUserAuthorizationType).value_or(0));
    if (type == AuthorizationType::deregistration && !s.is_registered()) {
        c.result = result::kIdentityNotRegistered;
        return;
    }
    if (type == AuthorizationType::registration_and_capabilities || s.server_name.empty()) {
        c.result = result::kFirstRegistration;  // without Server-Capabilities: any S-CSCF will do
        return;
    }
    c.answer.avps.add(avp::kServerName, s.server_name);
    c.result = type == AuthorizationType::deregistration ? result::kSuccess : result::kSubsequentRegistration;
}

// TS 29.228 §6.3.1
void CxServer::authenticate(Case& c) {
    if (!demand(c, {avp::kUserName, avp::kPublicIdentity, avp::kSipAuthDataItem, avp::kServerName}) || !identify(c))
        return;
    const auto item = c.request.avps.group(avp::kSipAuthDataItem);
    if (!item) {
        c.result = result::kInvalidAvpValue;
        c.why = item.error().text;
        return;
    }
    const std::string asked = item->text(avp::kSipAuthenticationScheme);
    const std::string_view scheme = c.user->aka ? kAkaScheme : kDigestScheme;
    if (!iequals(asked, scheme) && !iequals(asked, kUnknownScheme)) {
        c.result = result::kAuthSchemeNotSupported;
        c.why = "asked for " + asked;
        return;
    }
    if (item->find(avp::kSipAuthorization) && !resynchronise(c, *item)) return;
    Subscription& s = subscription(*c.user);
    s.server_name = c.request.avps.text(avp::kServerName);
    s.server_host = c.request.avps.text(avp::kOriginHost);
    c.answer.avps.add(avp::kUserName, c.impi);
    c.answer.avps.add(avp::kPublicIdentity, c.impu);
    if (c.user->aka)
        add_aka_items(c, std::clamp(c.request.avps.number(avp::kSipNumberAuthItems).value_or(1), 1U, kMaxItems));
    else add_digest_item(c);
    c.result = result::kSuccess;
}

// SIP-Authorization is RAND || AUTS then, TS 29.229 §6.3.11.
bool CxServer::resynchronise(Case& c, const AvpList& item) {
    const Bytes& both = item.find(avp::kSipAuthorization)->data;
    Rand rand{};
    Auts auts{};
    std::optional<Sqn> sqn;
    if (both.size() == rand.size() + auts.size() && c.user->aka) {
        std::copy_n(both.begin(), rand.size(), rand.begin());
        std::copy_n(both.begin() + static_cast<std::ptrdiff_t>(rand.size()), auts.size(), auts.begin());
        sqn = verify_auts(*c.user->aka, rand, auts);
    }
    if (!sqn) {
        c.result = result::kUnableToComply;
        c.why = "AUTS does not verify";
        return false;
    }
    c.user->sqn = *sqn;
    c.why = "resynchronised";
    return true;
}

void CxServer::add_aka_items(Case& c, std::uint32_t count) {
    c.answer.avps.add_number(avp::kSipNumberAuthItems, count);
    for (std::uint32_t i = 1; i <= count; ++i) {
        Rand rand{};
        fill_random(rand);
        const AuthVector vector = make_auth_vector(*c.user->aka, rand, c.user->next_sqn(), c.user->amf);
        Bytes authenticate(vector.rand.begin(), vector.rand.end());
        authenticate.insert(authenticate.end(), vector.autn.begin(), vector.autn.end());
        AvpList item;
        item.add_number(avp::kSipItemNumber, i);
        item.add(avp::kSipAuthenticationScheme, kAkaScheme);
        item.add(avp::kSipAuthenticate, authenticate);
        item.add(avp::kSipAuthorization, vector.xres.expose());
        item.add(avp::kConfidentialityKey, vector.ck.expose());
        item.add(avp::kIntegrityKey, vector.ik.expose());
        c.answer.avps.add_group(avp::kSipAuthDataItem, item);
    }
}

// TS 29.229 §6.3.36: the S-CSCF makes the nonce, and gets H(username:realm:password).
void CxServer::add_digest_item(Case& c) {
    const std::string prefix = c.impi + ':' + users_.realm() + ':';
    AvpList digest;
    digest.add(avp::kDigestRealm, users_.realm());
    digest.add(avp::kDigestAlgorithm, "MD5");
    digest.add(avp::kDigestQop, "auth");
    digest.add(avp::kDigestHa1, hash_hex(Hash::md5, {as_bytes(prefix), c.user->password.expose()}));
    AvpList item;
    item.add_number(avp::kSipItemNumber, 1);
    item.add(avp::kSipAuthenticationScheme, kDigestScheme);
    item.add_group(avp::kSipDigestAuthenticate, digest);
    c.answer.avps.add_number(avp::kSipNumberAuthItems, 1);
    c.answer.avps.add_group(avp::kSipAuthDataItem, item);
}

// TS 29.228 §6.1.2.1: one of the two identities may be absent.
bool CxServer::identify_assigned(Case& c) {
    if (!c.impi.empty() && !c.impu.empty()) return identify(c);
    c.user = c.impi.empty() ? users_.by_aor(c.impu) : users_.by_impi(c.impi);
    if (!c.user) c.result = result::kUserUnknown;
    return c.user != nullptr;
}

void CxServer::assign(Case& c) {
    if (!demand(c, {avp::kServerName, avp::kServerAssignmentType}) || !identify_assigned(c)) return;
    const auto type = static_cast<AssignmentType>(*c.request.avps.number(avp::kServerAssignmentType));
    c.why = fmt::format("type {}", static_cast<std::uint32_t>(type));
    Subscription& s = subscription(*c.user);
    const std::string server = c.request.avps.text(avp::kServerName);
    if (s.is_registered() && s.server_name != server) {
        c.result = result::kIdentityAlreadyRegistered;
        c.why += ", served by " + s.server_name;
        return;
    }
    if (is_assignment(type)) {
        s.server_name = server;
        s.server_host = c.request.avps.text(avp::kOriginHost);
    }
    apply(s, type, is_assignment(type) ? c.user->impi : c.impi);
    c.answer.avps.add(avp::kUserName, c.user->impi);
    const bool has_data = c.request.avps.number(avp::kUserDataAlreadyAvailable).value_or(0) == 1;
    if (!has_data && (is_assignment(type) || type == AssignmentType::no_assignment))
        c.answer.avps.add(avp::kUserData, profile_of(*c.user));
    c.result = result::kSuccess;
}

// TS 29.228 §6.1.4.1
void CxServer::locate(Case& c) {
    if (!demand(c, {avp::kPublicIdentity})) return;
    c.user = users_.by_aor(c.impu);
    if (!c.user) {
        c.result = result::kUserUnknown;
        return;
    }
    const Subscription& s = subscription(*c.user);
    if (s.server_name.empty() || (!s.is_registered() && !s.is_unregistered)) {
        c.result = result::kIdentityNotRegistered;
        return;
    }
    c.answer.avps.add(avp::kServerName, s.server_name);
    c.result = result::kSuccess;
}

void CxServer::finish(Case& c, std::string_view command) {
    AvpList application;
    application.add_number(avp::kVendorId, kVendor3gpp);
    application.add_number(avp::kAuthApplicationId, kCxApplication);
    c.answer.avps.add_group(avp::kVendorSpecificApplicationId, application);
    c.answer.avps.add_number(avp::kAuthSessionState, 1);  // NO_STATE_MAINTAINED
    add_result(c.answer.avps, c.result);
    log_.write({{"event", "cx"},
                {"command", command},
                {"from", c.request.avps.text(avp::kOriginHost)},
                {"impi", c.impi},
                {"impu", c.impu},
                {"server", c.request.avps.text(avp::kServerName)},
                {"result", c.result.code},
                {"experimental", c.result.is_experimental},
                {"why", c.why}});
}

std::string CxServer::profile_of(const User& user) const {
    return profile_document(user.impi, user.impus, options_.application_server);
}

Result<CxServer::Outgoing> CxServer::to_server_of(const std::string& impi, std::uint32_t command) {
    User* user = users_.by_impi(impi);
    if (!user) return fail("no user '{}'", impi);
    const Subscription& s = subscription(*user);
    if (s.server_host.empty()) return fail("no S-CSCF serves '{}'", impi);
    Outgoing out{s.server_host, {}};
    out.message.command = command;
    out.message.application = kCxApplication;
    AvpList application;
    application.add_number(avp::kVendorId, kVendor3gpp);
    application.add_number(avp::kAuthApplicationId, kCxApplication);
    out.message.avps.add_group(avp::kVendorSpecificApplicationId, application);
    out.message.avps.add_number(avp::kAuthSessionState, 1);
    out.message.avps.add(avp::kUserName, impi);
    return out;
}

Result<CxServer::Outgoing> CxServer::terminate(const std::string& impi, std::uint32_t reason) {
    auto out = to_server_of(impi, command::kRegistrationTermination);
    if (!out) return out;
    for (const std::string& impu : users_.by_impi(impi)->impus) out->message.avps.add(avp::kPublicIdentity, impu);
    AvpList why;
    why.add_number(avp::kReasonCode, reason);
    out->message.avps.add_group(avp::kDeregistrationReason, why);
    return out;
}

void CxServer::terminated(const std::string& impi) {
    if (const User* user = users_.by_impi(impi)) subscription(*user) = Subscription();
}

Result<CxServer::Outgoing> CxServer::push(const std::string& impi) {
    auto out = to_server_of(impi, command::kPushProfile);
    if (out) out->message.avps.add(avp::kUserData, profile_of(*users_.by_impi(impi)));
    return out;
}

}  // namespace gmgate::peers
