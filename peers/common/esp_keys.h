// ESP keys from CK and IK, TS 33.203 Annex I (and its older releases for hmac-md5-96 and des-ede3-cbc).
#pragma once

#include "algorithms.h"
#include "bytes.h"

namespace gmgate::peers {

/// 128 bits as they are for hmac-md5-96; IK || 32 zero bits for hmac-sha-1-96; empty otherwise.
[[nodiscard]] SecretBytes esp_integrity_key(Alg alg, const Key<16>& ik);
/// CK for aes-cbc; CK1||CK2||CK1 with odd parity for des-ede3-cbc; empty otherwise.
[[nodiscard]] SecretBytes esp_cipher_key(Ealg ealg, const Key<16>& ck);
/// The 20 octets key||salt of aes-gcm (from CK) or aes-gmac (from IK); empty for other pairs.
/// The salt is the last 32 bits of KDF(CK||IK) of TS 33.220 Annex B, FC 0x59 or 0x58.
[[nodiscard]] SecretBytes esp_aead_key(AlgPair pair, const Key<16>& ck, const Key<16>& ik);
/// KDF of TS 33.220 Annex B with one parameter: HMAC-SHA-256(CK||IK, FC || P0 || L0).
[[nodiscard]] SecretBytes gba_kdf(const Key<16>& ck, const Key<16>& ik, std::uint8_t fc, std::string_view p0);

}  // namespace gmgate::peers
