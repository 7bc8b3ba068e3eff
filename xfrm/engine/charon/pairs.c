/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "pairs.h"

#include <string.h>

enum { HMAC_SHA_1_96 = 0, HMAC_MD5_96 = 1, AES_GMAC = 2, ALG_NULL = 3 };
enum { AES_CBC = 0, DES_EDE3_CBC = 1, AES_GCM = 2, EALG_NULL = 3 };

static const struct pair_row rows[] = {
    {{ALG_NULL, AES_GCM, {0}},
     "null with aes-gcm",
     "",
     "",
     "rfc4106(gcm(aes))",
     0,
     0,
     20,
     "gcm ctr ghash-generic aes_generic seqiv"},
    {{AES_GMAC, EALG_NULL, {0}},
     "aes-gmac with null",
     "",
     "",
     "rfc4543(gcm(aes))",
     0,
     0,
     20,
     "gcm ctr ghash-generic aes_generic seqiv crypto_null"},
    {{HMAC_SHA_1_96, AES_CBC, {0}},
     "hmac-sha-1-96 with aes-cbc",
     "hmac(sha1)",
     "cbc(aes)",
     "",
     20,
     16,
     0,
     "authenc echainiv hmac sha1_generic cbc aes_generic"},
    {{HMAC_SHA_1_96, DES_EDE3_CBC, {0}},
     "hmac-sha-1-96 with des-ede3-cbc",
     "hmac(sha1)",
     "cbc(des3_ede)",
     "",
     20,
     24,
     0,
     "authenc echainiv hmac sha1_generic cbc des_generic"},
    {{HMAC_SHA_1_96, EALG_NULL, {0}},
     "hmac-sha-1-96 with null",
     "hmac(sha1)",
     "ecb(cipher_null)",
     "",
     20,
     0,
     0,
     "authenc hmac sha1_generic ecb crypto_null"},
    {{HMAC_MD5_96, AES_CBC, {0}},
     "hmac-md5-96 with aes-cbc",
     "hmac(md5)",
     "cbc(aes)",
     "",
     16,
     16,
     0,
     "authenc echainiv hmac md5 cbc aes_generic"},
    {{HMAC_MD5_96, DES_EDE3_CBC, {0}},
     "hmac-md5-96 with des-ede3-cbc",
     "hmac(md5)",
     "cbc(des3_ede)",
     "",
     16,
     24,
     0,
     "authenc echainiv hmac md5 cbc des_generic"},
    {{HMAC_MD5_96, EALG_NULL, {0}},
     "hmac-md5-96 with null",
     "hmac(md5)",
     "ecb(cipher_null)",
     "",
     16,
     0,
     0,
     "authenc hmac md5 ecb crypto_null"},
};

const struct pair_row* pair_find(struct gm_pair pair) {
    for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i)
        if (memcmp(&rows[i].pair, &pair, sizeof pair) == 0) return &rows[i];
    return NULL;
}

const struct pair_row* pair_by_names(const char* auth, const char* crypt, const char* aead) {
    for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i)
        if (strcmp(rows[i].auth, auth) == 0 && strcmp(rows[i].crypt, crypt) == 0 && strcmp(rows[i].aead, aead) == 0)
            return &rows[i];
    return NULL;
}
