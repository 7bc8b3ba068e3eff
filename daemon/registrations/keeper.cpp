#include "daemon/registrations/keeper.h"

#include <utility>
#include <vector>

#include <asio/post.hpp>

namespace gmgate::daemon {

Keeper::Keeper(asio::any_io_executor executor, Table& table, Store& store)
    : executor_(std::move(executor)), table_(table), store_(store) {
    table_.on_change([this](const ContactKey& key) { changed(key); });
}

Task<void> Keeper::save(ContactKey key) {
    const auto* registration = table_.find(key);
    if (!registration || registration->ended || !store_.is_kept()) co_return;
    changed_.erase(key);
    auto row = to_stored(*registration);
    static_cast<void>(co_await store_.save(std::move(row)));
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

Task<void> Keeper::save_all() {
    std::vector<ContactKey> keys;
    table_.for_each([&](Registration& registration) { keys.push_back(registration.key); });
    for (auto& key : keys) co_await save(std::move(key));
}

}  // namespace gmgate::daemon
