// The keys under which session tickets are sealed (RFC 5077, RFC 8446 §4.6.1): random, in memory only, replaced in a
// rhythm; or those of a file, for sessions that outlive the process or are taken up at another node.
#pragma once

#include <array>
#include <chrono>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/secret.h"
#include "ktls/types.h"

namespace gmgate::ktls {

/// The current key seals; the current and the one before open. Called from the handshake threads.
class TicketKeys {
public:
    using Name = std::array<unsigned char, 16>;
    struct Key {
        Name name{};
        Secret<32> encryption;
        Secret<32> authentication;
        std::chrono::steady_clock::time_point until;
    };

    explicit TicketKeys(std::chrono::seconds lifetime) : lifetime_(lifetime) {}

    /// 80 octets a key, as `openssl rand 80` writes them: name (16), encryption (32), authentication (32); up to eight
    /// keys one behind the other, the newest first. Reaction::refused with file, reason and fix; also where others than
    /// owner and group may read it.
    static Result<std::vector<Key>> read_file(const std::string& path);
    /// From now on these, and no random ones: the first seals, all open. Whoever shares them replaces them.
    void share(std::vector<Key> keys);

    /// A copy of the key to seal with; replaces it first when its time is over.
    Key current();
    /// The key of that name and whether it is still the current one; nullopt: unknown or too old.
    std::optional<std::pair<Key, bool>> find(const unsigned char* name);
    /// Replaces the current key now, unless keys are shared.
    void rotate();

    /// Installs this object's keys in a context; `this` outlives every handshake of that context.
    void attach(ssl_ctx_st* context);

private:
    void rotate_locked(std::chrono::steady_clock::time_point now);
    void refresh_locked();

    std::mutex mutex_;
    std::chrono::seconds lifetime_;
    std::optional<Key> current_, previous_;
    std::vector<Key> shared_;
};

}  // namespace gmgate::ktls
