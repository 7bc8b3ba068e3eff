#include "xfrm/engine/sealer.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#include "xfrm/engine/frames.h"

namespace gmgate::xfrm {
namespace {

/// What is encrypted: fixed size, whatever the pair.
struct Plain {
    std::uint8_t sizes[4];
    std::uint8_t integrity[20], confidentiality[24], combined[20];
};
static_assert(sizeof(Plain) == 68 && sizeof(gm_sealed::octets) == sizeof(Plain) + 16);
static_assert(sizeof(gm_sealed) == std::tuple_size_v<SealedKeys>);

constexpr int kTag = 16;

std::unexpected<Error> refused(std::string why) {
    return failure(Reaction::refused, "not allowed: the sealed keys of a cluster's record: " + std::move(why), EPERM);
}

std::unexpected<Error> broken(const char* what) {
    return failure(Reaction::internal, std::string("libcrypto failed: ") + what);
}

template <std::size_t N>
void put(const Secret<N>& key, std::uint8_t& size, std::uint8_t (&field)[N]) {
    size = static_cast<std::uint8_t>(key.size());
    std::ranges::copy(key.expose(), field);
}

template <std::size_t N>
bool take(Secret<N>& key, std::uint8_t size, const std::uint8_t (&field)[N]) {
    if (size > N) return false;
    key.assign(std::span(field).first(size));
    return true;
}

/// Everything that is bound and not secret, one field behind the other; the name comes last, as its length is not
/// fixed.
std::vector<std::uint8_t> bound_data(std::string_view cluster, const gm_set& set, const RecordDigest& record,
                                     const gm_sealed& sealed) {
    constexpr std::string_view purpose = "gmgate-sealed-set-1";
    std::vector<std::uint8_t> data(purpose.begin(), purpose.end());
    const auto add = [&](const void* at, std::size_t size) {
        const auto* octets = static_cast<const std::uint8_t*>(at);
        data.insert(data.end(), octets, octets + size);
    };
    add(&set, sizeof set);
    add(record.data(), record.size());
    add(&sealed.epoch, sizeof sealed.epoch);
    add(sealed.out_sequence, sizeof sealed.out_sequence);
    add(sealed.in_sequence, sizeof sealed.in_sequence);
    add(&sealed.key_id, sizeof sealed.key_id);
    add(cluster.data(), cluster.size());
    return data;
}

using Cipher = std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)>;
Cipher cipher() { return {EVP_CIPHER_CTX_new(), &EVP_CIPHER_CTX_free}; }

bool derive(std::string salt, std::string_view cluster, std::span<const std::uint8_t> secret,
            std::span<std::uint8_t> out) {
    const std::unique_ptr<EVP_KDF, decltype(&EVP_KDF_free)> kdf(EVP_KDF_fetch(nullptr, "HKDF", nullptr), &EVP_KDF_free);
    if (!kdf) return false;
    const std::unique_ptr<EVP_KDF_CTX, decltype(&EVP_KDF_CTX_free)> context(EVP_KDF_CTX_new(kdf.get()),
                                                                            &EVP_KDF_CTX_free);
    char digest[] = "SHA256";
    std::string info(cluster);
    const OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, const_cast<std::uint8_t*>(secret.data()), secret.size()),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, salt.data(), salt.size()),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info.data(), info.size()), OSSL_PARAM_construct_end()};
    return context && EVP_KDF_derive(context.get(), out.data(), out.size(), parameters) == 1;
}

int digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

std::string_view trimmed(std::string_view line) {
    if (const auto comment = line.find('#'); comment != std::string_view::npos) line = line.substr(0, comment);
    while (!line.empty() && std::strchr(" \t\r", line.front())) line.remove_prefix(1);
    while (!line.empty() && std::strchr(" \t\r", line.back())) line.remove_suffix(1);
    return line;
}

/// Octets of a line's secret; empty when it is none.
Secret<128> octets_of(std::string_view hex) {
    Secret<128> secret;
    if (hex.size() % 2 != 0 || hex.size() < 64 || hex.size() > 256) return secret;
    const auto out = secret.expose_for_writing(hex.size() / 2);
    for (std::size_t i = 0; i < out.size(); ++i) {
        const int high = digit(hex[2 * i]), low = digit(hex[2 * i + 1]);
        if (high < 0 || low < 0) {
            secret.clear();
            return secret;
        }
        out[i] = static_cast<std::uint8_t>(high * 16 + low);
    }
    return secret;
}

}  // namespace

Result<Sealer> Sealer::from_text(std::string_view cluster, std::string_view text) {
    Sealer sealer;
    sealer.cluster_ = cluster;
    for (int number = 1; !text.empty(); ++number) {
        const auto end = text.find('\n');
        const auto line = trimmed(text.substr(0, end));
        text = end == std::string_view::npos ? std::string_view{} : text.substr(end + 1);
        if (line.empty()) continue;
        const auto colon = line.find(':');
        const int id = colon == std::string_view::npos ? 0 : std::atoi(std::string(line.substr(0, colon)).c_str());
        const auto secret = octets_of(colon == std::string_view::npos ? std::string_view{} : line.substr(colon + 1));
        const auto is_known = std::ranges::any_of(sealer.keys_, [&](const Key& key) { return key.id == id; });
        if (id < 1 || id > 255 || secret.empty() || is_known)
            return failure(Reaction::reject,
                           fmt::format("line {} is not KEY-ID:HEX with a key id from 1 to 255 of its own and at least "
                                       "64 hexadecimal digits; `openssl rand -hex 32` makes them",
                                       number));
        Key key;
        key.id = static_cast<std::uint8_t>(id);
        if (!derive("gmgate cluster 1", cluster, secret.expose(), key.secret.expose_for_writing(32)) ||
            !derive("gmgate dialogs 1", cluster, secret.expose(), key.dialogs.expose_for_writing(16)))
            return broken("HKDF");
        sealer.keys_.push_back(std::move(key));
    }
    if (sealer.keys_.empty()) return failure(Reaction::reject, "it has no key; write a line KEY-ID:HEX");
    return sealer;
}

Result<gm_sealed> Sealer::seal(const gm_set& set, const RecordDigest& record, std::uint64_t epoch,
                               const KeyedSet& keyed) const {
    gm_sealed sealed{};
    sealed.epoch = epoch;
    sealed.key_id = keys_.front().id;
    std::ranges::copy(keyed.sequences.out, sealed.out_sequence);
    std::ranges::copy(keyed.sequences.in, sealed.in_sequence);
    if (RAND_bytes(sealed.nonce, sizeof sealed.nonce) != 1) return broken("random numbers");
    Plain plain{};
    put(keyed.keys.integrity, plain.sizes[0], plain.integrity);
    put(keyed.keys.confidentiality, plain.sizes[1], plain.confidentiality);
    put(keyed.keys.combined, plain.sizes[2], plain.combined);
    const auto bound = bound_data(cluster_, set, record, sealed);
    const auto context = cipher();
    int size = 0;
    const bool is_sealed =
        context &&
        EVP_EncryptInit_ex(context.get(), EVP_aes_256_gcm(), nullptr, keys_.front().secret.expose().data(),
                           sealed.nonce) == 1 &&
        EVP_EncryptUpdate(context.get(), nullptr, &size, bound.data(), static_cast<int>(bound.size())) == 1 &&
        EVP_EncryptUpdate(context.get(), sealed.octets, &size, reinterpret_cast<const std::uint8_t*>(&plain),
                          sizeof plain) == 1 &&
        EVP_EncryptFinal_ex(context.get(), sealed.octets + size, &size) == 1 &&
        EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_GET_TAG, kTag, sealed.octets + sizeof plain) == 1;
    wipe(&plain, sizeof plain);
    if (!is_sealed) return broken("AES-256-GCM");
    return sealed;
}

Result<KeyedSet> Sealer::open(const gm_set& set, const RecordDigest& record, const gm_sealed& sealed) const {
    const auto key = std::ranges::find(keys_, sealed.key_id, &Key::id);
    if (key == keys_.end())
        return refused(fmt::format("no line of the secret has its key id {}; give every node the same lines",
                                   static_cast<int>(sealed.key_id)));
    const auto is_zero = [](std::uint8_t octet) { return octet == 0; };
    if (!std::ranges::all_of(sealed.reserved, is_zero) || !std::ranges::all_of(sealed.reserved_end, is_zero))
        return refused("reserved octets are not 0");
    auto bound = bound_data(cluster_, set, record, sealed);
    const auto context = cipher();
    Plain plain{};
    int size = 0;
    auto tag = std::to_array(sealed.octets);
    const bool is_open =
        context &&
        EVP_DecryptInit_ex(context.get(), EVP_aes_256_gcm(), nullptr, key->secret.expose().data(), sealed.nonce) == 1 &&
        EVP_DecryptUpdate(context.get(), nullptr, &size, bound.data(), static_cast<int>(bound.size())) == 1 &&
        EVP_DecryptUpdate(context.get(), reinterpret_cast<std::uint8_t*>(&plain), &size, sealed.octets, sizeof plain) ==
            1 &&
        EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_SET_TAG, kTag, tag.data() + sizeof plain) == 1 &&
        EVP_DecryptFinal_ex(context.get(), reinterpret_cast<std::uint8_t*>(&plain) + size, &size) == 1;
    KeyedSet keyed;
    const bool is_whole = is_open && take(keyed.keys.integrity, plain.sizes[0], plain.integrity) &&
                          take(keyed.keys.confidentiality, plain.sizes[1], plain.confidentiality) &&
                          take(keyed.keys.combined, plain.sizes[2], plain.combined);
    wipe(&plain, sizeof plain);
    if (!is_whole) return refused("they do not open: another cluster's secret, or the record was altered");
    std::ranges::copy(sealed.out_sequence, keyed.sequences.out.begin());
    std::ranges::copy(sealed.in_sequence, keyed.sequences.in.begin());
    return keyed;
}

SipHashKey Sealer::dialog_key() const {
    SipHashKey key{};
    std::ranges::copy(keys_.front().dialogs.expose(), key.begin());
    return key;
}

Result<StartingSequences> Sealer::go_on(const gm_sealed& sealed, std::uint64_t epoch) {
    if (epoch <= sealed.epoch) return refused("they are not of an epoch before this one");
    StartingSequences start;
    std::ranges::copy(sealed.in_sequence, start.in.begin());
    for (std::size_t i = 0; i < start.out.size(); ++i) {
        const std::uint64_t epochs = std::min<std::uint64_t>(epoch - sealed.epoch, 1U << 12);
        const std::uint64_t next = sealed.out_sequence[i] + epochs * kSequencesPerEpoch;
        if (next > UINT32_MAX - kSequencesPerEpoch) return refused("its outbound sequence numbers are used up");
        start.out[i] = static_cast<std::uint32_t>(next);
    }
    return start;
}

Result<std::unique_ptr<Sealer>> sealer_of_environment() {
    const char* cluster = std::getenv("GMGATE_CLUSTER");
    const char* path = std::getenv("GMGATE_CLUSTER_SECRET");
    if (!cluster || !path) return std::unique_ptr<Sealer>{};
    const int file = ::open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return system_failure(Reaction::refused, fmt::format("the cluster's secret {}", path), errno);
    Secret<8192> text;
    const auto room = text.expose_for_writing(8192);
    const auto size = ::read(file, room.data(), room.size());
    ::close(file);
    if (size < 0) return system_failure(Reaction::refused, fmt::format("the cluster's secret {}", path), errno);
    auto sealer =
        Sealer::from_text(cluster, {reinterpret_cast<const char*>(room.data()), static_cast<std::size_t>(size)});
    if (!sealer) {
        sealer.error().text = fmt::format("the cluster's secret {}: {}", path, sealer.error().text);
        return std::unexpected(sealer.error());
    }
    // Whatever libcrypto looks up at the first use is looked up now: behind the worker's filter there are no files.
    const gm_set set{};
    const KeyedSet nothing{};
    if (const auto tried = sealer->seal(set, {}, 1, nothing); !tried || !sealer->open(set, {}, *tried))
        return broken("AES-256-GCM");
    return std::make_unique<Sealer>(std::move(*sealer));
}

}  // namespace gmgate::xfrm
