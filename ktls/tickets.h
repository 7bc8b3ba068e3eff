// The keys under which session tickets are sealed (RFC 5077, RFC 8446 §4.6.1): random, in memory only, replaced in a
// rhythm.
#pragma once

#include <array>
#include <chrono>
#include <mutex>
#include <optional>

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

    /// A copy of the key to seal with; replaces it first when its time is over.
    Key current();
    /// The key of that name and whether it is still the current one; nullopt: unknown or too old.
    std::optional<std::pair<Key, bool>> find(const unsigned char* name);
    /// Replaces the current key now.
    void rotate();

    /// Installs this object's keys in a context; `this` outlives every handshake of that context.
    void attach(ssl_ctx_st* context);

private:
    void rotate_locked(std::chrono::steady_clock::time_point now);
    void refresh_locked();

    std::mutex mutex_;
    std::chrono::seconds lifetime_;
    std::optional<Key> current_, previous_;
};

}  // namespace gmgate::ktls
