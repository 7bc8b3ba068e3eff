#include "ktls/tickets.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <utility>

#include <fcntl.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <sys/stat.h>
#include <unistd.h>

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
    if (!shared_.empty()) return duplicate(shared_.front());
    refresh_locked();
    return duplicate(*current_);
}

std::optional<std::pair<TicketKeys::Key, bool>> TicketKeys::find(const unsigned char* name) {
    const std::lock_guard lock(mutex_);
    for (const auto& key : shared_)
        if (std::memcmp(key.name.data(), name, key.name.size()) == 0)
            return std::pair(duplicate(key), &key == &shared_.front());
    if (!shared_.empty()) return std::nullopt;
    refresh_locked();
    for (const auto* key : {&current_, &previous_})
        if (*key && std::memcmp((*key)->name.data(), name, (*key)->name.size()) == 0)
            return std::pair(duplicate(**key), key == &current_);
    return std::nullopt;
}

void TicketKeys::rotate() {
    const std::lock_guard lock(mutex_);
    if (shared_.empty()) rotate_locked(std::chrono::steady_clock::now());
}

Result<std::vector<TicketKeys::Key>> TicketKeys::read_file(const std::string& path) {
    constexpr std::size_t kOctets = 80, kMost = 8;
    const OwnedFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat about {};
    if (!file.is_open() || ::fstat(file.get(), &about) != 0)
        return system_failure(Reaction::refused, "cannot read the ticket keys " + path, errno);
    if ((about.st_mode & S_IRWXO) != 0)
        return failure(Reaction::refused, "everybody may read the ticket keys " + path + ": chmod o= " + path);
    const auto size = static_cast<std::size_t>(about.st_size);
    if (size == 0 || size % kOctets != 0 || size / kOctets > kMost)
        return failure(Reaction::refused, "the ticket keys " + path + " are " + std::to_string(size) +
                                              " octets: 80 for each of at most 8 keys; openssl rand 80 makes one");
    std::vector<Key> keys(size / kOctets);
    for (auto& key : keys) {
        const auto fill = [&file](auto octets) {
            return ::read(file.get(), octets.data(), octets.size()) == static_cast<ssize_t>(octets.size());
        };
        if (!fill(std::span(key.name)) || !fill(key.encryption.expose_for_writing(32)) ||
            !fill(key.authentication.expose_for_writing(32)))
            return failure(Reaction::refused, "the ticket keys " + path + " end too soon: write the file anew");
    }
    return keys;
}

void TicketKeys::share(std::vector<Key> keys) {
    const std::lock_guard lock(mutex_);
    shared_ = std::move(keys);
}

void TicketKeys::attach(ssl_ctx_st* context) {
    SSL_CTX_set_ex_data(context, key_index(), this);
    SSL_CTX_set_tlsext_ticket_key_evp_cb(context, ticket_callback);
}

}  // namespace gmgate::ktls
