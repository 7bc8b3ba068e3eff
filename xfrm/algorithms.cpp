#include "xfrm/algorithms.h"

#include <algorithm>
#include <array>

namespace gmgate::xfrm {
namespace {

// Names and lengths: B-72, kernel-tested on 6.1. sha1 takes a key of any length without complaint, so the lengths stand
// here.
constexpr std::array<KernelAlgorithms, 8> kTable{{
    {.pair = {Alg::null, Ealg::aes_gcm},
     .aead = "rfc4106(gcm(aes))",
     .aead_key_bits = 160,
     .icv_bits = 128,
     .modules = "gcm ctr ghash-generic aes_generic seqiv"},
    {.pair = {Alg::aes_gmac, Ealg::null},
     .aead = "rfc4543(gcm(aes))",
     .aead_key_bits = 160,
     .icv_bits = 128,
     .modules = "gcm ctr ghash-generic aes_generic seqiv crypto_null"},
    {.pair = {Alg::hmac_sha_1_96, Ealg::aes_cbc},
     .auth = "hmac(sha1)",
     .auth_key_bits = 160,
     .auth_trunc_bits = 96,
     .crypt = "cbc(aes)",
     .crypt_key_bits = 128,
     .modules = "authenc echainiv hmac sha1_generic cbc aes_generic"},
    {.pair = {Alg::hmac_sha_1_96, Ealg::des_ede3_cbc},
     .auth = "hmac(sha1)",
     .auth_key_bits = 160,
     .auth_trunc_bits = 96,
     .crypt = "cbc(des3_ede)",
     .crypt_key_bits = 192,
     .modules = "authenc echainiv hmac sha1_generic cbc des_generic"},
    {.pair = {Alg::hmac_sha_1_96, Ealg::null},
     .auth = "hmac(sha1)",
     .auth_key_bits = 160,
     .auth_trunc_bits = 96,
     .crypt = "ecb(cipher_null)",
     .crypt_key_bits = 0,
     .modules = "authenc hmac sha1_generic ecb crypto_null"},
    {.pair = {Alg::hmac_md5_96, Ealg::aes_cbc},
     .auth = "hmac(md5)",
     .auth_key_bits = 128,
     .auth_trunc_bits = 96,
     .crypt = "cbc(aes)",
     .crypt_key_bits = 128,
     .modules = "authenc echainiv hmac md5 cbc aes_generic"},
    {.pair = {Alg::hmac_md5_96, Ealg::des_ede3_cbc},
     .auth = "hmac(md5)",
     .auth_key_bits = 128,
     .auth_trunc_bits = 96,
     .crypt = "cbc(des3_ede)",
     .crypt_key_bits = 192,
     .modules = "authenc echainiv hmac md5 cbc des_generic"},
    {.pair = {Alg::hmac_md5_96, Ealg::null},
     .auth = "hmac(md5)",
     .auth_key_bits = 128,
     .auth_trunc_bits = 96,
     .crypt = "ecb(cipher_null)",
     .crypt_key_bits = 0,
     .modules = "authenc hmac md5 ecb crypto_null"},
}};

}  // namespace

const KernelAlgorithms* find_algorithms(AlgorithmPair pair) {
    const auto row = std::ranges::find(kTable, pair, &KernelAlgorithms::pair);
    return row == kTable.end() ? nullptr : &*row;
}

std::optional<AlgorithmPair> pair_from_names(std::string_view auth, std::string_view crypt, std::string_view aead) {
    for (const auto& row : kTable)
        if (row.auth == auth && row.crypt == crypt && row.aead == aead) return row.pair;
    return std::nullopt;
}

std::span<const KernelAlgorithms> all_algorithms() { return kTable; }

}  // namespace gmgate::xfrm
