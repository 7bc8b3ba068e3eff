// The numbers of Diameter (RFC 6733) and of Cx (TS 29.229) that an HSS needs.
#pragma once

#include "diameter.h"

namespace gmgate::peers::diameter {

inline constexpr std::uint32_t kVendor3gpp = 10415;
inline constexpr std::uint32_t kCxApplication = 16777216;  // TS 29.229 §5.1

namespace command {
inline constexpr std::uint32_t kCapabilitiesExchange = 257, kDeviceWatchdog = 280, kDisconnectPeer = 282;
inline constexpr std::uint32_t kUserAuthorization = 300, kServerAssignment = 301, kLocationInfo = 302,
                               kMultimediaAuth = 303, kRegistrationTermination = 304, kPushProfile = 305;
}  // namespace command

/// Result-Code, or Experimental-Result-Code of vendor 3GPP.
struct ResultCode {
    std::uint32_t code = 0;
    bool is_experimental = false;
};

namespace result {
inline constexpr ResultCode kSuccess{2001};
inline constexpr ResultCode kCommandUnsupported{3001}, kApplicationUnsupported{3007};
inline constexpr ResultCode kInvalidAvpValue{5004}, kMissingAvp{5005}, kUnableToComply{5012};
// TS 29.229 §6.2
inline constexpr ResultCode kFirstRegistration{2001, true}, kSubsequentRegistration{2002, true},
    kUnregisteredService{2003, true}, kUserUnknown{5001, true}, kIdentitiesDontMatch{5002, true},
    kIdentityNotRegistered{5003, true}, kIdentityAlreadyRegistered{5005, true}, kAuthSchemeNotSupported{5006, true},
    kErrorInAssignmentType{5007, true};
}  // namespace result

namespace avp {
inline constexpr AvpName kUserName{1}, kDigestRealm{104}, kDigestQop{110}, kDigestAlgorithm{111}, kDigestHa1{121},
    kHostIpAddress{257}, kAuthApplicationId{258}, kVendorSpecificApplicationId{260}, kSessionId{263}, kOriginHost{264},
    kSupportedVendorId{265}, kVendorId{266}, kResultCode{268}, kProductName{269}, kAuthSessionState{277},
    kFailedAvp{279}, kErrorMessage{281}, kDestinationRealm{283}, kProxyInfo{284}, kDestinationHost{293},
    kOriginRealm{296}, kExperimentalResult{297}, kExperimentalResultCode{298};
// TS 29.229 §6.3
inline constexpr AvpName kVisitedNetworkIdentifier{600, kVendor3gpp}, kPublicIdentity{601, kVendor3gpp},
    kServerName{602, kVendor3gpp}, kUserData{606, kVendor3gpp}, kSipNumberAuthItems{607, kVendor3gpp},
    kSipAuthenticationScheme{608, kVendor3gpp}, kSipAuthenticate{609, kVendor3gpp}, kSipAuthorization{610, kVendor3gpp},
    kSipAuthDataItem{612, kVendor3gpp}, kSipItemNumber{613, kVendor3gpp}, kServerAssignmentType{614, kVendor3gpp},
    kDeregistrationReason{615, kVendor3gpp}, kReasonCode{616, kVendor3gpp}, kReasonInfo{617, kVendor3gpp},
    kUserAuthorizationType{623, kVendor3gpp}, kUserDataAlreadyAvailable{624, kVendor3gpp},
    kConfidentialityKey{625, kVendor3gpp}, kIntegrityKey{626, kVendor3gpp}, kSipDigestAuthenticate{635, kVendor3gpp};
}  // namespace avp

/// Server-Assignment-Type, TS 29.229 §6.3.15.
enum class AssignmentType : std::uint32_t {
    no_assignment = 0,
    registration = 1,
    re_registration = 2,
    unregistered_user = 3,
    timeout_deregistration = 4,
    user_deregistration = 5,
    timeout_deregistration_store_server_name = 6,
    user_deregistration_store_server_name = 7,
    administrative_deregistration = 8,
    authentication_failure = 9,
    authentication_timeout = 10,
    deregistration_too_much_data = 11,
};

/// Adds the one of the two AVPs that carries this code (TS 29.229 §6.2: vendor results are Experimental-Result).
inline void add_result(AvpList& avps, ResultCode code) {
    if (!code.is_experimental) return avps.add_number(avp::kResultCode, code.code);
    AvpList group;
    group.add_number(avp::kVendorId, kVendor3gpp);
    group.add_number(avp::kExperimentalResultCode, code.code);
    avps.add_group(avp::kExperimentalResult, group);
}

/// User-Authorization-Type, TS 29.229 §6.3.24.
enum class AuthorizationType : std::uint32_t {
    registration = 0,
    deregistration = 1,
    registration_and_capabilities = 2
};

}  // namespace gmgate::peers::diameter
