#include "ktls/tickets.h"

#include <cstring>
#include <utility>

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>

#include "base/random.h"

namespace gmgate::ktls {
namespace {

TicketKeys::Key duplicate(const TicketKeys::Key& key) {
    TicketKeys::Key copy;
    copy.name = key.name;
    copy.encryption = key.encryption.duplicate();
    copy.authentication = key.authentication.duplicate();
    copy.until = key.until;
    return copy;
}

int key_index() {
    static const int index = SSL_CTX_get_ex_new_index(0, nullptr, nullptr, nullptr, nullptr);
    return index;
}

bool set_mac_key(EVP_MAC_CTX* mac, const TicketKeys::Key& key) {
    char digest[] = "SHA256";
    const auto bytes = key.authentication.expose();
    const OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, const_cast<unsigned char*>(bytes.data()), bytes.size()),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0), OSSL_PARAM_construct_end()};
    return EVP_MAC_CTX_set_params(mac, parameters) == 1;
}

// SSL_CTX_set_tlsext_ticket_key_evp_cb(3): 1 = sealed or opened, 2 = opened and to be renewed, 0 = no such key, -1 =
// error.
int ticket_callback(SSL* ssl, unsigned char* name, unsigned char* iv, EVP_CIPHER_CTX* cipher, EVP_MAC_CTX* mac,
                    int seal) {
    auto* keys = static_cast<TicketKeys*>(SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), key_index()));
    if (keys == nullptr) return -1;
    if (seal == 1) {
        const auto key = keys->current();
        if (RAND_bytes(iv, EVP_MAX_IV_LENGTH) != 1) return -1;
        std::memcpy(name, key.name.data(), key.name.size());
        const bool ready =
            EVP_EncryptInit_ex(cipher, EVP_aes_256_cbc(), nullptr, key.encryption.expose().data(), iv) == 1 &&
            set_mac_key(mac, key);
        return ready ? 1 : -1;
    }
    const auto found = keys->find(name);
    if (!found) return 0;
    const auto& [key, is_current] = *found;
    const bool ready =
        EVP_DecryptInit_ex(cipher, EVP_aes_256_cbc(), nullptr, key.encryption.expose().data(), iv) == 1 &&
        set_mac_key(mac, key);
    return ready ? (is_current ? 1 : 2) : -1;
}

}  // namespace

void TicketKeys::rotate_locked(std::chrono::steady_clock::time_point now) {
    Key fresh;
    random_bytes(fresh.name);
    random_bytes(fresh.encryption.expose_for_writing(32));
    random_bytes(fresh.authentication.expose_for_writing(32));
    fresh.until = now + lifetime_;
    previous_ = std::move(current_);
    current_ = std::move(fresh);
}

void TicketKeys::refresh_locked() {
    const auto now = std::chrono::steady_clock::now();
    if (current_ && now < current_->until) {
        if (previous_ && now >= previous_->until + lifetime_) previous_.reset();
        return;
    }
    if (current_ && now >= current_->until + lifetime_)
        current_.reset();  // nobody came for long: even the newest ticket is too old
    rotate_locked(now);
}

TicketKeys::Key TicketKeys::current() {
    const std::lock_guard lock(mutex_);
    refresh_locked();
    return duplicate(*current_);
}

std::optional<std::pair<TicketKeys::Key, bool>> TicketKeys::find(const unsigned char* name) {
    const std::lock_guard lock(mutex_);
    refresh_locked();
    for (const auto* key : {&current_, &previous_})
        if (*key && std::memcmp((*key)->name.data(), name, (*key)->name.size()) == 0)
            return std::pair(duplicate(**key), key == &current_);
    return std::nullopt;
}

void TicketKeys::rotate() {
    const std::lock_guard lock(mutex_);
    rotate_locked(std::chrono::steady_clock::now());
}

void TicketKeys::attach(ssl_ctx_st* context) {
    SSL_CTX_set_ex_data(context, key_index(), this);
    SSL_CTX_set_tlsext_ticket_key_evp_cb(context, ticket_callback);
}

}  // namespace gmgate::ktls
