#include "daemon/registrations/keeper.h"

#include <functional>
#include <utility>
#include <vector>

#include <asio/post.hpp>

#include "base/slice.h"

namespace gmgate::daemon {

Keeper::Keeper(asio::any_io_executor executor, Table& table, Store& store)
    : executor_(std::move(executor)), table_(table), store_(store) {
    table_.on_change([this](const ContactKey& key) { changed(key); });
}

Task<void> Keeper::save(ContactKey key) {
    if (also_) {
        ContactKey same = key;
        co_await also_(std::move(same));
    }
    if (!store_.is_kept()) co_return;
    const auto* registration = table_.find(key);
    changed_.erase(key);
    if (!registration || registration->ended) {
        static_cast<void>(co_await store_.remove(std::move(key)));
        co_return;
    }
    auto row = to_stored(*registration);
    static_cast<void>(co_await store_.save(std::move(row)));
}

Task<void> Keeper::save_challenge(ChallengeKey key) {
    if (also_challenges_) co_await also_challenges_(std::move(key));
}

void Keeper::changed(const ContactKey& key) {
    if (!store_.is_kept()) return;
    if (changed_.empty())
        asio::post(executor_, [this, weak = std::weak_ptr(alive_)] {
            if (weak.lock()) write_now();
        });
    changed_.insert(key);
}

void Keeper::write_now() {
    for (const auto& key : std::exchange(changed_, {})) {
        const auto* registration = table_.find(key);
        if (registration && !registration->ended) store_.put(to_stored(*registration));
        else store_.erase(key);
    }
}

// The writer takes what stands in the queue together: waiting for each of 50,000 rows would take minutes.
Task<void> Keeper::save_all() {
    constexpr std::size_t kTogether = 256;
    std::vector<ContactKey> keys;
    std::function<void(Registration&)> each = [&keys](Registration& registration) { keys.push_back(registration.key); };
    co_await table_.walk(std::move(each));
    Slice slice;
    for (std::size_t i = 0; i < keys.size(); ++i) {
        if ((i + 1) % kTogether == 0 || i + 1 == keys.size()) {
            co_await save(std::move(keys[i]));
            continue;
        }
        const auto* registration = table_.find(keys[i]);
        if (registration && !registration->ended) store_.put(to_stored(*registration));
        if (slice.is_over()) co_await slice.pause();
    }
}

}  // namespace gmgate::daemon
