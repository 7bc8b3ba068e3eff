// IMS AKA on top of Milenage: authentication vectors, the USIM's checks, resynchronisation, and its mapping to HTTP
// Digest.
#pragma once

#include "crypto.h"
#include "error.h"
#include "milenage.h"

#include <variant>

namespace gmgate::peers {

/// The secrets that a USIM and its home network share.
struct AkaSecrets {
    Key<16> k;
    Key<16> opc;
    [[nodiscard]] AkaSecrets clone() const { return {k.clone(), opc.clone()}; }
};

/// What the home network sends in a challenge and expects back. TS 33.102 §6.3.2.
struct AuthVector {
    Rand rand{};
    Autn autn{};
    Key<8> xres;
    Key<16> ck;
    Key<16> ik;
};

/// AUTN = (SQN xor AK) || AMF || MAC-A. TS 33.102 §6.3.2.
[[nodiscard]] AuthVector make_auth_vector(const AkaSecrets& secrets, const Rand& rand, Sqn sqn, const Amf& amf);

/// The network proved itself and the sequence number is fresh.
struct AkaSuccess {
    Key<8> res;
    Key<16> ck;
    Key<16> ik;
    Sqn sqn;
};
/// The challenge does not come from a network that knows K. TS 33.203 §7.3.1.2.
struct AkaMacFailure {};
/// The challenge is authentic but its sequence number is not acceptable. TS 33.203 §7.3.1.3.
struct AkaSyncFailure {
    Auts auts{};
    Sqn sqn;
};
using AkaOutcome = std::variant<AkaSuccess, AkaMacFailure, AkaSyncFailure>;

/// The USIM's side: checks MAC-A, then that SQN is greater than sqn_ms; otherwise makes AUTS from sqn_ms. TS 33.102
/// §6.3.3.
[[nodiscard]] AkaOutcome usim_authenticate(const AkaSecrets& secrets, const Rand& rand, const Autn& autn, Sqn sqn_ms);
/// AUTS = (SQN_MS xor AK*) || MAC-S with AMF* = 0000. TS 33.102 §6.3.3.
[[nodiscard]] Auts make_auts(const AkaSecrets& secrets, const Rand& rand, Sqn sqn_ms);
/// The home network's side of resynchronisation: SQN_MS, or nothing when MAC-S does not verify. TS 33.102 §6.3.5.
[[nodiscard]] std::optional<Sqn> verify_auts(const AkaSecrets& secrets, const Rand& rand, const Auts& auts);

/// nonce = base64(RAND || AUTN). RFC 3310 §3.2.
[[nodiscard]] std::string aka_nonce(const Rand& rand, const Autn& autn);
struct AkaNonce {
    Rand rand{};
    Autn autn{};
};
/// Takes RAND and AUTN out of a nonce; server data after them is ignored. RFC 3310 §3.2.
[[nodiscard]] Result<AkaNonce> parse_aka_nonce(std::string_view nonce);
/// Password of AKAv2: base64(HMAC_H(RES || IK || CK, "http-digest-akav2-password")). RFC 4169 §2.1.
[[nodiscard]] SecretBytes akav2_password(Hash algorithm, ByteView res, const Key<16>& ik, const Key<16>& ck);

}  // namespace gmgate::peers
